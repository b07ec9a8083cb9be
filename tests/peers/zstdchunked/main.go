// Pulls zstd:chunked layers partially, with containers/storage: its differ asks for the table of contents and then for
// the ranges of the blob that hold what no layer before had, puts the files in place, and computes the diff id from the
// files and the tar-split. Of each layer it prints that, the digest of the tar that the store makes of it again, how
// many bytes were asked for, and the directory with the files.
// Arguments: an empty directory, and for each layer the blob and its annotations as JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/containers/storage"
	graphdriver "github.com/containers/storage/drivers"
	"github.com/containers/storage/pkg/chunked"
	"github.com/containers/storage/pkg/reexec"
	digest "github.com/opencontainers/go-digest"
)

func check(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v\n", err)
		os.Exit(1)
	}
}

// blob is a registry's blob: it can be read in ranges.
type blob struct {
	file  *os.File
	asked atomic.Int64
}

func (b *blob) GetBlobAt(chunks []chunked.ImageSourceChunk) (chan io.ReadCloser, chan error, error) {
	streams, errs := make(chan io.ReadCloser), make(chan error)
	go func() {
		defer close(streams)
		defer close(errs)
		for _, chunk := range chunks {
			b.asked.Add(int64(chunk.Length))
			streams <- io.NopCloser(io.NewSectionReader(b.file, int64(chunk.Offset), int64(chunk.Length)))
		}
	}()
	return streams, errs, nil
}

func pull(store storage.Store, place, path, said string) {
	var annotations map[string]string
	check(json.Unmarshal([]byte(said), &annotations))
	file, err := os.Open(path)
	check(err)
	status, err := file.Stat()
	check(err)
	whole, err := digest.FromReader(file)
	check(err)
	source := &blob{file: file}
	differ, err := chunked.NewDiffer(context.Background(), store, whole, status.Size(), annotations, source)
	check(err)
	defer differ.Close()
	out, err := store.PrepareStagedLayer(nil, differ)
	check(err)
	diffID := out.UncompressedDigest
	layer, err := store.ApplyStagedLayer(storage.ApplyStagedLayerOptions{
		ID: diffID.Encoded(), DiffOutput: out, DiffOptions: &graphdriver.ApplyDiffWithDifferOpts{},
	})
	check(err)
	tar, err := store.Diff("", layer.ID, nil)
	check(err)
	again, err := digest.FromReader(tar)
	check(err)
	check(tar.Close())
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"diff_id": diffID, "again": again, "asked": source.asked.Load(),
		"files": filepath.Join(place, "graph", "overlay", layer.ID, "diff"),
	}))
}

func main() {
	if reexec.Init() {
		return
	}
	place := os.Args[1]
	store, err := storage.GetStore(storage.StoreOptions{
		RunRoot:         filepath.Join(place, "run"),
		GraphRoot:       filepath.Join(place, "graph"),
		GraphDriverName: "overlay",
		PullOptions:     map[string]string{"enable_partial_images": "true"},
	})
	check(err)
	for i := 2; i+1 < len(os.Args); i += 2 {
		pull(store, place, os.Args[i], os.Args[i+1])
	}
	_, err = store.Shutdown(true)
	check(err)
}
