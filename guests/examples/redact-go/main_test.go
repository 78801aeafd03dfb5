package main

import "testing"

func check(t *testing.T, config, body, want string) {
	t.Helper()
	input := `{"body":` + body + `,"metadata":{},"session_id":"s","config":` + config + `}`
	got, err := redact([]byte(input))
	if err != nil {
		got = []byte("error: " + err.Error())
	}
	if string(got) != want {
		t.Errorf("%s\n got %s\nwant %s", input, got, want)
	}
}

func TestRedact(t *testing.T) {
	const words = `{"words":["zeus","apollo 11"]}`
	modified := func(body string) string {
		return `{"action":"MODIFIED","body":` + body + `,"message":"redacted by configuration"}`
	}
	check(t, words, `{"messages":[{"role":"user","content":"Tell Zeus, of APOLLO 11"}]}`,
		modified(`{"messages":[{"role":"user","content":"Tell [redacted], of [redacted]"}]}`))
	check(t, `{"words":["zeus"],"replacement":"\"X\"\n"}`, ` { "messages" : [ {"content":"zeus","role":"user"} ] , "n": 1.50 }`,
		modified(`{ "messages" : [ {"content":"\"X\"\n","role":"user"} ] , "n": 1.50 }`))
	check(t, words, `{"messages":[{"role":"user","content":"zeus"},{"role":"user","content":[{"text":"\u007aeus \ud83d\ude00 \" \\ \u0001"},{"n":0}]},{"role":"assistant","content":"zeus"}]}`,
		modified(`{"messages":[{"role":"user","content":"zeus"},{"role":"user","content":[{"text":"[redacted] `+"\U0001F600"+` \" \\ \u0001"},{"n":0}]},{"role":"assistant","content":"zeus"}]}`))
	check(t, words, `{"messa\u0067es":[{"role":"\u0075ser","content":"zeus"}]}`,
		modified(`{"messa\u0067es":[{"role":"\u0075ser","content":"[redacted]"}]}`))
}

func TestAllow(t *testing.T) {
	const words, allow = `{"words":["zeus",""]}`, `{"action":"ALLOW"}`
	check(t, words, `{"messages":[{"role":"user","content":"zeusian azeus z\u00e9us"}]}`, allow)
	check(t, words, `{"messages":[{"role":"system","content":"zeus"}]}`, allow)
	check(t, words, `{"messages":[]}`, allow)
	check(t, words, `{"messages":null}`, allow)
	check(t, words, `{"messages":[{"role":"user","content":null}]}`, allow)
	check(t, words, `{}`, allow)
	check(t, words, `null`, allow)
}

func TestErrors(t *testing.T) {
	check(t, `{}`, `{}`, "error: config `words` must be a list of strings")
	check(t, `{"words":[1]}`, `{}`, "error: config `words` must be a list of strings")
	for _, body := range []string{`{"messages":"zeus"}`, `{"messages":{}}`, `{"messages":[{"role":"user","content":{"text":"zeus"}}]}`} {
		check(t, `{"words":["zeus"]}`, body, "error: "+string(errNotChat))
	}
	for _, body := range []string{`{`, `"`, `"\`, `{"a"}`, `{"messages":[1,]}`, `]`, ``} {
		check(t, `{"words":["zeus"]}`, body, "error: the input is not JSON")
	}
}

func TestBlock(t *testing.T) {
	const want = `{"action":"block","status_code":400,"error_type":"unreadable_body","message":"the input is not JSON"}`
	if got := string(block(errNotJSON)); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}
