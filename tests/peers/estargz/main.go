// Reads an eStargz layer with the library of containerd's stargz-snapshotter: opens it, verifies the table of contents
// against the digest that the descriptor's annotation names, reads each file through it and every chunk against its
// digest, and prints one JSON object for each entry, by name.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/containerd/stargz-snapshotter/estargz"
	digest "github.com/opencontainers/go-digest"
)

type line struct {
	Name   string            `json:"name"`
	Type   string            `json:"type"`
	Size   int64             `json:"size"`
	Mode   int64             `json:"mode"`
	UID    int               `json:"uid"`
	GID    int               `json:"gid"`
	MTime  int64             `json:"mtime"`
	Link   string            `json:"link"`
	Xattrs map[string][]byte `json:"xattrs"`
	Sha256 string            `json:"sha256"`
	Chunks int               `json:"chunks"`
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func content(r *estargz.Reader, verifiers estargz.TOCEntryVerifier, e *estargz.TOCEntry) (string, int) {
	file, err := r.OpenFile(e.Name)
	check(err)
	sum := sha256.New()
	chunks := 0
	for at := int64(0); at < e.Size; chunks++ {
		chunk, ok := r.ChunkEntryForOffset(e.Name, at)
		if !ok || chunk.ChunkOffset != at {
			check(fmt.Errorf("%s: no chunk at %d", e.Name, at))
		}
		verifier, err := verifiers.Verifier(chunk)
		check(err)
		part := io.NewSectionReader(file, at, chunk.ChunkSize)
		_, err = io.Copy(io.MultiWriter(sum, verifier), part)
		check(err)
		if !verifier.Verified() {
			check(fmt.Errorf("%s: the chunk at %d is not the one of its digest", e.Name, at))
		}
		at += chunk.ChunkSize
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), chunks
}

func main() {
	file, err := os.Open(os.Args[1])
	check(err)
	status, err := file.Stat()
	check(err)
	section := io.NewSectionReader(file, 0, status.Size())
	r, err := estargz.Open(section)
	check(err)
	verifiers, err := r.VerifyTOC(digest.Digest(os.Args[2]))
	check(err)
	tar, err := estargz.Unpack(section, new(estargz.GzipDecompressor))
	check(err)
	_, err = io.Copy(io.Discard, tar)
	check(err)
	out := json.NewEncoder(os.Stdout)
	var walk func(name string, e *estargz.TOCEntry)
	walk = func(name string, e *estargz.TOCEntry) {
		said := line{Name: name, Type: e.Type, Size: e.Size, Mode: e.Mode, UID: e.UID, GID: e.GID,
			MTime: e.ModTime().Unix(), Link: e.LinkName, Xattrs: e.Xattrs}
		if e.Type == "reg" && e.Size > 0 {
			said.Sha256, said.Chunks = content(r, verifiers, e)
		}
		check(out.Encode(said))
		e.ForeachChild(func(base string, child *estargz.TOCEntry) bool {
			walk(name+"/"+base, child)
			return true
		})
	}
	root, ok := r.Lookup("")
	if !ok {
		check(fmt.Errorf("no root"))
	}
	walk("", root)
}
