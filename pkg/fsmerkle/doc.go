// Package fsmerkle keeps numbered 4 KiB pages under a tree of digests, with checkpoints.
package fsmerkle
