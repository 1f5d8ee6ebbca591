package nfs3

const fattrSize = 84 // fattr3 [RFC1813 §2.6]

// padded is n rounded up to XDR's unit of four bytes [RFC4506 §3].
func padded(n int) int { return (n + 3) &^ 3 }
