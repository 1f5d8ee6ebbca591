//go:build race

package pbfttest

func init() { share = 2 }
