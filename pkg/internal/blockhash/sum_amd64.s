//go:build !purego

#include "go_asm.h"
#include "textflag.h"

// SHA-256 [FIPS 180-4 §6.2] with the SHA extensions of Intel's and AMD's processors. They want the state in two registers and the
// message in four others, what is named first in the lowest lane:
//
//	state    F E B A    H G D C
//	message  w0 w1 w2 w3    w4 w5 w6 w7    w8 w9 w10 w11    w12 w13 w14 w15
//
// The first stream has X1, X2 and X3 to X6, the second X7, X8 and X9 to X12. X0 is what SHA256RNDS2 always reads, X13 scratch and X15
// the order of bytes. Neither X0 nor X13 ties the streams together: the processor renames a register whenever it is written anew.

DATA initial<>+0x00(SB)/8, $0x510e527f9b05688c // F E
DATA initial<>+0x08(SB)/8, $0x6a09e667bb67ae85 // B A
DATA initial<>+0x10(SB)/8, $0x1f83d9ab5be0cd19 // H G
DATA initial<>+0x18(SB)/8, $0x3c6ef372a54ff53a // D C
GLOBL initial<>(SB), RODATA|NOPTR, $32

DATA bigEndian<>+0x00(SB)/8, $0x0405060700010203
DATA bigEndian<>+0x08(SB)/8, $0x0c0d0e0f08090a0b
GLOBL bigEndian<>(SB), RODATA|NOPTR, $16

// INITIAL begins a message.
#define INITIAL(abef, cdgh) \
	MOVOU initial<>+0x00(SB), abef \
	MOVOU initial<>+0x10(SB), cdgh

// LOAD reads four words of a message.
#define LOAD(from, w) \
	MOVOU  from, w \
	PSHUFB X15, w

// ROUNDS does the four rounds whose words and constants, added, are in X0. Two rounds turn A B E F into C D G H, so the registers
// change places, and do so twice.
#define ROUNDS(abef, cdgh) \
	SHA256RNDS2 X0, abef, cdgh \
	PSHUFD      $0x0e, X0, X0  \
	SHA256RNDS2 X0, cdgh, abef

// FOUR does the four rounds of w, with their constants.
#define FOUR(abef, cdgh, w, constants) \
	MOVOU constants, X0 \
	PADDL w, X0         \
	ROUNDS(abef, cdgh)

// NEXT puts the four words that follow the sixteen in w, x, y and z, which are in order, in the place of the first four:
//
//	w[t] = σ1(w[t-2]) + w[t-7] + σ0(w[t-15]) + w[t-16]
#define NEXT(w, x, y, z) \
	MOVO       z, X13     \
	PALIGNR    $4, y, X13 \
	SHA256MSG1 x, w       \
	PADDL      X13, w     \
	SHA256MSG2 z, w

// NEXT16 does sixteen rounds of the first stream, of which X3 to X6 have the words of the sixteen before.
#define NEXT16(k0, k1, k2, k3) \
	NEXT(X3, X4, X5, X6)     \
	FOUR(X1, X2, X3, k0(AX)) \
	NEXT(X4, X5, X6, X3)     \
	FOUR(X1, X2, X4, k1(AX)) \
	NEXT(X5, X6, X3, X4)     \
	FOUR(X1, X2, X5, k2(AX)) \
	NEXT(X6, X3, X4, X5)     \
	FOUR(X1, X2, X6, k3(AX))

// NEXT16BOTH does so for both streams.
#define NEXT16BOTH(k0, k1, k2, k3) \
	NEXT(X3, X4, X5, X6)      \
	NEXT(X9, X10, X11, X12)   \
	FOUR(X1, X2, X3, k0(AX))  \
	FOUR(X7, X8, X9, k0(AX))  \
	NEXT(X4, X5, X6, X3)      \
	NEXT(X10, X11, X12, X9)   \
	FOUR(X1, X2, X4, k1(AX))  \
	FOUR(X7, X8, X10, k1(AX)) \
	NEXT(X5, X6, X3, X4)      \
	NEXT(X11, X12, X9, X10)   \
	FOUR(X1, X2, X5, k2(AX))  \
	FOUR(X7, X8, X11, k2(AX)) \
	NEXT(X6, X3, X4, X5)      \
	NEXT(X12, X9, X10, X11)   \
	FOUR(X1, X2, X6, k3(AX))  \
	FOUR(X7, X8, X12, k3(AX))

// STORE writes a digest of which the state is all that is left.
#define STORE(abef, cdgh, low, high) \
	PSHUFD     $0x1b, abef, abef \ // A B E F
	PSHUFD     $0x1b, cdgh, cdgh \ // C D G H
	MOVO       abef, X13         \
	PUNPCKLQDQ cdgh, abef        \ // A B C D
	PUNPCKHQDQ cdgh, X13         \ // E F G H
	PSHUFB     X15, abef         \
	PSHUFB     X15, X13          \
	MOVOU      abef, low         \
	MOVOU      X13, high

// func digest(out *Digest, block *[Size]byte, node *[nodeSize]byte, constants, closing *[64]uint32)
TEXT ·digest(SB), NOSPLIT, $64-40
	MOVQ  block+8(FP), SI
	MOVQ  constants+24(FP), AX
	MOVOU bigEndian<>(SB), X15

	// The halves, 64 bytes of each at a time.
	INITIAL(X1, X2)
	INITIAL(X7, X8)
	LEAQ const_half(SI), DI
	MOVQ DI, CX // where the first half ends

halves:
	MOVOU X1, 0(SP)
	MOVOU X2, 16(SP)
	MOVOU X7, 32(SP)
	MOVOU X8, 48(SP)

	LOAD(0(SI), X3)
	LOAD(0(DI), X9)
	FOUR(X1, X2, X3, 0x00(AX))
	FOUR(X7, X8, X9, 0x00(AX))
	LOAD(16(SI), X4)
	LOAD(16(DI), X10)
	FOUR(X1, X2, X4, 0x10(AX))
	FOUR(X7, X8, X10, 0x10(AX))
	LOAD(32(SI), X5)
	LOAD(32(DI), X11)
	FOUR(X1, X2, X5, 0x20(AX))
	FOUR(X7, X8, X11, 0x20(AX))
	LOAD(48(SI), X6)
	LOAD(48(DI), X12)
	FOUR(X1, X2, X6, 0x30(AX))
	FOUR(X7, X8, X12, 0x30(AX))

	NEXT16BOTH(0x40, 0x50, 0x60, 0x70)
	NEXT16BOTH(0x80, 0x90, 0xa0, 0xb0)
	NEXT16BOTH(0xc0, 0xd0, 0xe0, 0xf0)

	MOVOU 0(SP), X3
	MOVOU 16(SP), X4
	MOVOU 32(SP), X9
	MOVOU 48(SP), X10
	PADDL X3, X1
	PADDL X4, X2
	PADDL X9, X7
	PADDL X10, X8
	ADDQ  $64, SI
	ADDQ  $64, DI
	CMPQ  SI, CX
	JB    halves

	// What closes each half is known: closing has its words and the constants, added.
	MOVQ closing+32(FP), BX
	MOVO X1, X3
	MOVO X2, X4
	MOVO X7, X9
	MOVO X8, X10
	XORQ CX, CX

close:
	MOVOU (BX)(CX*1), X0
	ROUNDS(X1, X2)
	MOVOU (BX)(CX*1), X0
	ROUNDS(X7, X8)
	ADDQ  $16, CX
	CMPQ  CX, $256
	JB    close

	PADDL X3, X1
	PADDL X4, X2
	PADDL X9, X7
	PADDL X10, X8

	// The node over them, of two blocks, ends as it was given.
	MOVQ node+16(FP), DX
	STORE(X1, X2, const_first(DX), const_first+16(DX))
	STORE(X7, X8, const_second(DX), const_second+16(DX))
	INITIAL(X1, X2)
	LEAQ const_nodeSize(DX), CX

node:
	MOVO X1, X7
	MOVO X2, X8
	LOAD(0(DX), X3)
	FOUR(X1, X2, X3, 0x00(AX))
	LOAD(16(DX), X4)
	FOUR(X1, X2, X4, 0x10(AX))
	LOAD(32(DX), X5)
	FOUR(X1, X2, X5, 0x20(AX))
	LOAD(48(DX), X6)
	FOUR(X1, X2, X6, 0x30(AX))

	NEXT16(0x40, 0x50, 0x60, 0x70)
	NEXT16(0x80, 0x90, 0xa0, 0xb0)
	NEXT16(0xc0, 0xd0, 0xe0, 0xf0)

	PADDL X7, X1
	PADDL X8, X2
	ADDQ  $64, DX
	CMPQ  DX, CX
	JB    node

	MOVQ out+0(FP), DI
	STORE(X1, X2, 0(DI), 16(DI))
	RET

// func cpuid(leaf, sub uint32) (eax, ebx, ecx, edx uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-24
	MOVL leaf+0(FP), AX
	MOVL sub+4(FP), CX
	CPUID
	MOVL AX, eax+8(FP)
	MOVL BX, ebx+12(FP)
	MOVL CX, ecx+16(FP)
	MOVL DX, edx+20(FP)
	RET
