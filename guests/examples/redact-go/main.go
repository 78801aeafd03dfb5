// Replaces configured words in the last user message of a chat request.
//
// Speaks the LLMProxy protocol. Config: {"words": ["zeus"], "replacement": "[redacted]"}. A word is found in
// any ASCII case, and not inside a longer word. A request that cannot be read is blocked.
//
// Neither encoding/json nor fmt is used: each adds more to the module than the rest of the program together.
package main

// A WASI reactor has no main of its own, but Go wants one.
func main() {}

//go:wasmexport handle
func handle() int32 {
	answer, err := redact(input())
	if why, ok := err.(unreadable); ok {
		output(block(why))
		return 0
	}
	if err != nil {
		fail(err.Error())
		return 1
	}
	output(answer)
	return 0
}

const errNotChat = unreadable("the messages of this request are not of a form that is known here")

// block refuses the request. A failure instead would leave that to the operator's failure policy.
func block(why unreadable) []byte {
	answer := []byte(`{"action":"block","status_code":400,"error_type":"unreadable_body","message":`)
	return append(quote(answer, string(why)), '}')
}

func redact(input []byte) ([]byte, error) {
	document := doc(input)
	top, err := document.whole()
	if err != nil {
		return nil, err
	}
	body, err := document.member(top, "body")
	if err != nil {
		return nil, err
	}
	filter, err := document.filter(top)
	if err != nil {
		return nil, err
	}
	texts, err := document.lastUserTexts(body)
	if err != nil {
		return nil, err
	}

	// The new body is the old one with some strings exchanged: the rest stays as it came, numbers and all.
	changed := []byte(`{"action":"MODIFIED","body":`)
	copied, found := body.from, 0
	for _, text := range texts {
		before, err := document.text(text)
		if err != nil {
			return nil, err
		}
		after, n := filter.apply(before)
		if n == 0 {
			continue
		}
		found += n
		changed = append(changed, document[copied:text.from]...)
		changed = quote(changed, after)
		copied = text.to
	}
	if found == 0 {
		return []byte(`{"action":"ALLOW"}`), nil
	}
	changed = append(changed, document[copied:body.to]...)
	return append(changed, `,"message":"redacted by configuration"}`...), nil
}

// lastUserTexts gives the strings of the last message of the user: its content, or the texts of its parts.
func (d doc) lastUserTexts(body span) ([]span, error) {
	messages, err := d.member(body, "messages")
	if err != nil {
		return nil, err
	}
	if !d.isOneOf(messages, "[n") {
		return nil, errNotChat
	}
	var last span
	err = d.elements(messages, func(message span) error {
		role, err := d.member(message, "role")
		if err != nil {
			return err
		}
		if name, err := d.text(role); err == nil && name == "user" {
			last = message
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	content, err := d.member(last, "content")
	if err != nil {
		return nil, err
	}
	if d.kind(content) == '"' {
		return []span{content}, nil
	}
	if !d.isOneOf(content, "[n") {
		return nil, errNotChat
	}
	var texts []span
	err = d.elements(content, func(part span) error {
		text, err := d.member(part, "text")
		if d.kind(text) == '"' {
			texts = append(texts, text)
		}
		return err
	})
	return texts, err
}

type filter struct {
	words       []string
	replacement string
}

func (d doc) filter(top span) (filter, error) {
	f := filter{replacement: "[redacted]"}
	config, err := d.member(top, "config")
	if err != nil {
		return f, err
	}
	if replacement, err := d.member(config, "replacement"); err != nil {
		return f, err
	} else if d.kind(replacement) != 0 {
		if f.replacement, err = d.text(replacement); err != nil {
			return f, failure("config `replacement` must be a string")
		}
	}
	words, err := d.member(config, "words")
	if err != nil {
		return f, err
	}
	if d.kind(words) != '[' {
		return f, failure("config `words` must be a list of strings")
	}
	err = d.elements(words, func(word span) error {
		text, err := d.text(word)
		if err != nil {
			return failure("config `words` must be a list of strings")
		}
		if text != "" {
			f.words = append(f.words, text)
		}
		return nil
	})
	return f, err
}

// apply gives the text without the words, and how many there were.
func (f filter) apply(text string) (string, int) {
	var out []byte
	copied, found := 0, 0
	for at := 0; at < len(text); {
		n := f.match(text, at)
		if n == 0 {
			at++
			continue
		}
		out = append(out, text[copied:at]...)
		out = append(out, f.replacement...)
		at += n
		copied = at
		found++
	}
	return string(append(out, text[copied:]...)), found
}

// match gives the length of the longest word that stands at this place, or 0.
func (f filter) match(text string, at int) int {
	longest := 0
	for _, word := range f.words {
		end := at + len(word)
		if len(word) > longest && end <= len(text) && sameLetters(text[at:end], word) &&
			isEdge(text, at) && isEdge(text, end) {
			longest = len(word)
		}
	}
	return longest
}

func sameLetters(a, b string) bool {
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		return b + 'a' - 'A'
	}
	return b
}

// isEdge reports whether no word of ASCII letters and digits runs over this place. Other scripts do not all
// put blanks between words, so there every place is an edge.
func isEdge(text string, at int) bool {
	return at == 0 || at == len(text) || !isAlphanumeric(text[at-1]) || !isAlphanumeric(text[at])
}

func isAlphanumeric(b byte) bool {
	b = lower(b)
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'z'
}
