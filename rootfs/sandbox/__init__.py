"""The rootless sandbox: a Debian root, run without root, without a network and without anything of the host's.

Law: `mounts` says as values what a sandbox shows, `child` is the program that makes it so (alone, standard library
only), `namespaces` starts that program and follows it, `probe` turns a refusal into its cause and a fix. Nothing here
knows Debian, CPython or what a command is for. Kernel side: namespaces(7), user_namespaces(7), mount_namespaces(7).
"""
