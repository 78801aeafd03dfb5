package main

import "unicode/utf8"

// How deep values may lie within each other; the same bound that the host's parser has.
const depthMax = 128

type failure string

func (f failure) Error() string { return string(f) }

// unreadable is what is wrong with the request, not with the plugin or its configuration.
type unreadable string

func (u unreadable) Error() string { return string(u) }

const errNotJSON = unreadable("the input is not JSON")

// A doc is JSON text; values are found in it and not copied out.
type doc []byte

// A span is one value within a doc, without blanks around it. The zero span means that there is none.
type span struct{ from, to int }

func (d doc) whole() (span, error) {
	from := d.blanks(0)
	to, err := d.skip(from)
	if err == nil && d.blanks(to) != len(d) {
		err = errNotJSON
	}
	return span{from, to}, err
}

// kind gives the first byte of a value, which tells its type; 0 for no value.
func (d doc) kind(value span) byte {
	if value.from == value.to {
		return 0
	}
	return d[value.from]
}

// isOneOf reports whether there is no value, or one whose first byte is among these.
func (d doc) isOneOf(value span, first string) bool {
	kind := d.kind(value)
	for i := range len(first) {
		if kind == first[i] {
			return true
		}
	}
	return kind == 0
}

// member finds a member of an object, the last one if several have that name. There is none in other types.
func (d doc) member(object span, name string) (span, error) {
	var found span
	if d.kind(object) != '{' {
		return found, nil
	}
	at := d.blanks(object.from + 1)
	for d.at(at) != '}' {
		key := span{from: at}
		var err error
		if key.to, err = d.skip(at); err != nil {
			return found, err
		}
		text, err := d.text(key)
		if err != nil {
			return found, err
		}
		at = d.blanks(key.to)
		if d.at(at) != ':' {
			return found, errNotJSON
		}
		value := span{from: d.blanks(at + 1)}
		if value.to, err = d.skip(value.from); err != nil {
			return found, err
		}
		if text == name {
			found = value
		}
		if at, err = d.next(value.to, '}'); err != nil {
			return found, err
		}
	}
	return found, nil
}

// elements visits the elements of a list; other types have none.
func (d doc) elements(list span, visit func(span) error) error {
	if d.kind(list) != '[' {
		return nil
	}
	at := d.blanks(list.from + 1)
	for d.at(at) != ']' {
		to, err := d.skip(at)
		if err != nil {
			return err
		}
		if err = visit(span{at, to}); err != nil {
			return err
		}
		if at, err = d.next(to, ']'); err != nil {
			return err
		}
	}
	return nil
}

// next goes over a comma to the next item, or stays at the closing bracket.
func (d doc) next(at int, closing byte) (int, error) {
	at = d.blanks(at)
	switch d.at(at) {
	case ',':
		if at = d.blanks(at + 1); d.at(at) == closing {
			return at, errNotJSON
		}
		return at, nil
	case closing:
		return at, nil
	}
	return at, errNotJSON
}

// skip gives the end of the value that begins here.
func (d doc) skip(at int) (int, error) {
	depth := 0
	for {
		switch b := d.at(at); b {
		case '"':
			at++
			for d.at(at) != '"' {
				if d.at(at) == '\\' {
					at++
				}
				if d.at(at) == 0 {
					return at, errNotJSON
				}
				at++
			}
			at++
		case '{', '[':
			if depth++; depth > depthMax {
				return at, unreadable("the input is nested too deeply")
			}
			at++
		case '}', ']':
			depth--
			at++
		case ',', ':', ' ', '\t', '\n', '\r':
			at++
			if depth == 0 {
				return at, errNotJSON
			}
			continue
		default:
			start := at
			for isAlphanumeric(d.at(at)) || d.at(at) == '-' || d.at(at) == '+' || d.at(at) == '.' {
				at++
			}
			if at == start {
				return at, errNotJSON
			}
		}
		if depth <= 0 {
			if depth < 0 {
				return at, errNotJSON
			}
			return at, nil
		}
	}
}

// at gives a byte, or 0 after the end; a 0 in JSON text is an error anyway.
func (d doc) at(i int) byte {
	if i < len(d) {
		return d[i]
	}
	return 0
}

func (d doc) blanks(at int) int {
	for b := d.at(at); b == ' ' || b == '\t' || b == '\n' || b == '\r'; b = d.at(at) {
		at++
	}
	return at
}

// text gives what a JSON string stands for. Half a surrogate pair becomes U+FFFD.
func (d doc) text(value span) (string, error) {
	if d.kind(value) != '"' {
		return "", failure("a string is expected")
	}
	raw := d[value.from+1 : value.to-1]
	var out []byte
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			continue
		}
		i++
		switch raw[i] {
		case '"', '\\', '/':
			out = append(out, raw[i])
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			high, err := unit(raw, i+1)
			if err != nil {
				return "", err
			}
			i += 4
			if 0xD800 <= high && high < 0xDC00 && i+2 < len(raw) && raw[i+1] == '\\' && raw[i+2] == 'u' {
				low, err := unit(raw, i+3)
				if err != nil {
					return "", err
				}
				if 0xDC00 <= low && low < 0xE000 {
					high = 0x10000 + (high-0xD800)<<10 + (low - 0xDC00)
					i += 6
				}
			}
			out = utf8.AppendRune(out, high)
		default:
			return "", errNotJSON
		}
	}
	return string(out), nil
}

// unit reads the four hexadecimal digits of an escape.
func unit(raw []byte, at int) (rune, error) {
	if at+4 > len(raw) {
		return 0, errNotJSON
	}
	var value rune
	for _, b := range raw[at : at+4] {
		b = lower(b)
		switch {
		case '0' <= b && b <= '9':
			value = value<<4 + rune(b-'0')
		case 'a' <= b && b <= 'f':
			value = value<<4 + rune(b-'a'+10)
		default:
			return 0, errNotJSON
		}
	}
	return value, nil
}

func quote(out []byte, text string) []byte {
	const hex = "0123456789abcdef"
	out = append(out, '"')
	for i := range len(text) {
		switch b := text[i]; {
		case b == '"' || b == '\\':
			out = append(out, '\\', b)
		case b == '\n':
			out = append(out, '\\', 'n')
		case b < ' ':
			out = append(out, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		default:
			out = append(out, b)
		}
	}
	return append(out, '"')
}
