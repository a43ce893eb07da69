package answer_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"parley.internal/shared/answer"
)

func TestTruncateCutsBetweenCharacters(t *testing.T) {
	for _, tt := range []struct {
		text  string
		units int
		head  string // of three units
	}{
		{"", 0, ""}, {"abc", 3, "abc"}, {"abcd", 4, "abc"}, {"äöüß", 4, "äöü"}, {"a😀😀", 5, "a😀"}, {"😀😀", 4, "😀"}, {"\xff\xff\xff\xff", 4, "\xff\xff\xff"},
	} {
		if got := answer.UTF16Length(tt.text); got != tt.units {
			t.Errorf("UTF16Length(%q) = %d; want %d", tt.text, got, tt.units)
		}
		if got := answer.Truncate(tt.text, 3); got != tt.head {
			t.Errorf("Truncate(%q, 3) = %q; want %q", tt.text, got, tt.head)
		}
	}
	if got := answer.Truncate("abc", -1); got != "" {
		t.Errorf("Truncate to less than nothing = %q", got)
	}
}

func FuzzTruncate(f *testing.F) {
	f.Add("a😀b", 2)
	f.Fuzz(func(t *testing.T, text string, units int) {
		units %= 1000
		head := answer.Truncate(text, units)
		rest, ok := strings.CutPrefix(text, head)
		if !ok || answer.UTF16Length(head) > max(units, 0) || utf8.ValidString(text) && !utf8.ValidString(head) {
			t.Errorf("Truncate(%q, %d) = %q", text, units, head)
		}
		if _, size := utf8.DecodeRuneInString(rest); rest != "" && answer.UTF16Length(head+rest[:size]) <= units {
			t.Errorf("Truncate(%q, %d) = %q; there is room for more", text, units, head)
		}
	})
}
