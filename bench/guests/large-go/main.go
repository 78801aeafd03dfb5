// A guest of the size that Go's standard library makes guests. It parses a number of things in its one call,
// so that the linker keeps the packages.
package main

import (
	"encoding/json"
	"encoding/xml"
	"html"
	"math/big"
	"net/netip"
	"net/url"
	"regexp"
)

//go:wasmimport extism:host/env alloc
func alloc(length uint64) uint64

//go:wasmimport extism:host/env store_u8
func storeU8(at uint64, value uint32)

//go:wasmimport extism:host/env output_set
func outputSet(at, length uint64)

func main() {}

//go:wasmexport run
func run() int32 {
	address, err := url.Parse("http://example/?q=1")
	if err != nil {
		return 1
	}
	page := html.EscapeString(address.RawQuery)
	text, err := json.Marshal(map[string]any{
		"page":  page,
		"match": regexp.MustCompile("q=([0-9])").FindString(address.String()),
		"big":   new(big.Int).Exp(big.NewInt(3), big.NewInt(200), nil).String(),
		"peer":  netip.MustParseAddr("192.0.2.1").String(),
		"xml":   xml.Unmarshal([]byte("<a/>"), new(struct{})) == nil,
	})
	if err != nil {
		return 3
	}
	at := alloc(uint64(len(text)))
	for i, b := range text {
		storeU8(at+uint64(i), uint32(b))
	}
	outputSet(at, uint64(len(text)))
	return 0
}
