package answer_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/clipperhouse/uax29/v2/graphemes"

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

func TestTruncateCutsBetweenGraphemeClusters(t *testing.T) {
	for _, tt := range []struct {
		text              string
		limit             int
		units, codePoints string
	}{
		{"🇩🇪🇫🇷", 7, "🇩🇪", "🇩🇪🇫🇷"},
		{"🇩🇪🇫🇷", 3, "\U0001f1e9", "🇩🇪"}, // longer than the limit: cut inside
		{"a👩‍👩‍👧‍👦b", 11, "a", "a👩‍👩‍👧‍👦b"},
		{"a👩‍👩‍👧‍👦b", 12, "a👩‍👩‍👧‍👦", "a👩‍👩‍👧‍👦b"},
		{"a👩‍👩‍👧‍👦b", 7, "a", "a"},
		{"ae\u0301\u0327", 3, "a", "a"},
		{"👍🏽👍🏽", 5, "👍🏽", "👍🏽👍🏽"},
		{"a1️⃣", 3, "a", "a"},
		{"ᄒ\u1161\u11abᄀ\u1173\u11af", 5, "ᄒ\u1161\u11ab", "ᄒ\u1161\u11ab"},
		{"a\r\nb", 2, "a", "a"},
	} {
		if got := answer.Truncate(tt.text, tt.limit); got != tt.units {
			t.Errorf("Truncate(%q, %d) = %q; want %q", tt.text, tt.limit, got, tt.units)
		}
		if got := answer.TruncateCodePoints(tt.text, tt.limit); got != tt.codePoints {
			t.Errorf("TruncateCodePoints(%q, %d) = %q; want %q", tt.text, tt.limit, got, tt.codePoints)
		}
	}
}

func FuzzTruncate(f *testing.F) {
	f.Add("a😀b", 2)
	f.Fuzz(func(t *testing.T, text string, units int) {
		units %= 1000
		head := answer.Truncate(text, units)
		_, ok := strings.CutPrefix(text, head)
		if !ok || answer.UTF16Length(head) > max(units, 0) || utf8.ValidString(text) && !utf8.ValidString(head) {
			t.Errorf("Truncate(%q, %d) = %q", text, units, head)
		}
		first := true
		for clusters := graphemes.FromString(text); clusters.Next(); first = false {
			switch {
			case clusters.Start() == len(head) && answer.UTF16Length(text[:clusters.End()]) <= units:
				t.Errorf("Truncate(%q, %d) = %q; there is room for more", text, units, head)
			case !first && clusters.Start() < len(head) && clusters.End() > len(head):
				t.Errorf("Truncate(%q, %d) = %q, inside %q", text, units, head, clusters.Value())
			}
		}
	})
}
