//go:build race

package sim

func init() { share = 2 }
