package whisper

import (
	"strings"
	"testing"
	"unicode/utf8"

	"parley.internal/shared/answer"
)

func TestFit(t *testing.T) {
	tests := []struct {
		name, in         string
		limit            int
		want, wantedNote string
	}{
		{"short", "hello there", 20, "hello there", ""},
		{"exactly", "hello there", 11, "hello there", ""},
		{"between words", "hello there you", 12, "hello there…", "cut to 12 of 15 characters"},
		{"within a word", "hello there you", 10, "hello…", "cut to 6 of 15 characters"},
		{"no space", "abcdefghijkl", 5, "abcd…", "cut to 5 of 12 characters"},
		{"the space is too far in front", "a bcdefghijklmnop", 10, "a bcdefgh…", "cut to 10 of 17 characters"},
		{"characters of two units", "😀😀😀😀", 6, "😀😀…", "cut to 5 of 8 characters"},
		{"umlauts are one character", "äöü äöü äöü", 11, "äöü äöü äöü", ""},
		{"many spaces", "hello       there, you", 9, "hello…", "cut to 6 of 22 characters"},
	}
	for _, tt := range tests {
		if got, note := fit(tt.in, tt.limit); got != tt.want || note != tt.wantedNote {
			t.Errorf("%s: fit = %q, %q; want %q, %q", tt.name, got, note, tt.want, tt.wantedNote)
		}
	}
}

func FuzzFit(f *testing.F) {
	f.Add("hello there you", 12)
	f.Add("\xff😀 \u0301", 2)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		if limit < 1 || limit > 10_000 {
			return
		}
		got, note := fit(text, limit)
		if n := answer.UTF16Length(got); n > limit {
			t.Errorf("%d characters; at most %d are wanted", n, limit)
		}
		if (note == "") != (got == text) && !strings.HasSuffix(text, "…") {
			t.Errorf("fit(%q, %d) = %q with note %q", text, limit, got, note)
		}
		if utf8.ValidString(text) && !utf8.ValidString(got) {
			t.Errorf("fit(%q, %d) = %q is broken", text, limit, got)
		}
	})
}
