//go:build wasip1

package main

//go:wasmimport extism:host/env input_length
func inputLength() uint64

//go:wasmimport extism:host/env input_load_u64
func inputLoadU64(at uint64) uint64

//go:wasmimport extism:host/env input_load_u8
func inputLoadU8(at uint64) uint32

//go:wasmimport extism:host/env alloc
func alloc(length uint64) uint64

//go:wasmimport extism:host/env store_u64
func storeU64(at, value uint64)

//go:wasmimport extism:host/env store_u8
func storeU8(at uint64, value uint32)

//go:wasmimport extism:host/env output_set
func outputSet(at, length uint64)

//go:wasmimport extism:host/env error_set
func errorSet(at uint64)

func input() []byte {
	bytes := make([]byte, inputLength())
	at := 0
	for ; at+8 <= len(bytes); at += 8 {
		word := inputLoadU64(uint64(at))
		for i := range 8 {
			bytes[at+i] = byte(word >> (8 * i))
		}
	}
	for ; at < len(bytes); at++ {
		bytes[at] = byte(inputLoadU8(uint64(at)))
	}
	return bytes
}

func output(bytes []byte) {
	outputSet(store(bytes), uint64(len(bytes)))
}

func fail(message string) {
	errorSet(store([]byte(message)))
}

// store copies bytes into a new block of the host's memory.
func store(bytes []byte) uint64 {
	block := alloc(uint64(len(bytes)))
	at := 0
	for ; at+8 <= len(bytes); at += 8 {
		var word uint64
		for i := range 8 {
			word |= uint64(bytes[at+i]) << (8 * i)
		}
		storeU64(block+uint64(at), word)
	}
	for ; at < len(bytes); at++ {
		storeU8(block+uint64(at), uint32(bytes[at]))
	}
	return block
}
