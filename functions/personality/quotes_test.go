package personality

import "testing"

func TestUnquote(t *testing.T) {
	for in, want := range map[string]string{
		`hello`:                   `hello`,
		` "hello" `:               `hello`,
		`"'hello'"`:               `hello`,
		`""hello""`:               `hello`,
		"“hello”":                 `hello`,
		"„hallo“":                 `hallo`,
		"„cześć”":                 `cześć`,
		"»hallo«":                 `hallo`,
		"«salut»":                 `salut`,
		"「hello」":                 `hello`,
		"“It’s ‘fine’, isn’t it”": "It’s ‘fine’, isn’t it",
		`'It's fine'`:             `It's fine`,
		"‘It’s fine’":             "It’s fine",
		`"'` + "`x`" + `'"`:       "`x`", // two layers, no more
		`"a" and "b"`:             `"a" and "b"`,
		`'a' and 'b'`:             `'a' and 'b'`,
		`“a” and “b”`:             `“a” and “b”`,
		"`a` and `b`":             "`a` and `b`",
		`"a", "b" and "c"`:        `"a", "b" and "c"`,
		"```\nx\n```":             "```\nx\n```",
		`it's`:                    `it's`,
		`"half`:                   `"half`,
		`half"`:                   `half"`,
		`""`:                      ``,
		`"`:                       `"`,
		``:                        ``,
	} {
		if got := unquote(in); got != want {
			t.Errorf("unquote(%q) = %q; want %q", in, got, want)
		}
	}
}

func FuzzUnquote(f *testing.F) {
	f.Add(`"'x'"`)
	f.Add(`""`)
	f.Fuzz(func(t *testing.T, s string) {
		if got := unquote(s); len(got) > len(s) {
			t.Errorf("unquote(%q) = %q grew", s, got)
		}
	})
}
