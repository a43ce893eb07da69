package chattext

import (
	"strings"
	"testing"
	"unicode/utf8"
)

const england = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"

func TestTrim(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"plain", "!help", "!help"},
		{"spaces", " \t!help \r\n", "!help"},
		{"other spaces", "\u3000!help\u00a0\u2003\u205f", "!help"},
		{"combining grapheme joiner", "!help \u034f", "!help"},
		{"the joiner without a space", "!help\u034f", "!help"},
		{"blank braille", "!help \u2800", "!help"},
		{"language tag", "!help \U000e0000", "!help"},
		{"language tag, two", "!help \U000e0001\U000e0000", "!help"},
		{"zero width", "\u200b!help\u200c\u200d\u2060\ufeff", "!help"},
		{"byte order mark", "\ufeff!help", "!help"},
		{"soft hyphen", "\u00ad!help\u00ad", "!help"},
		{"directions", "\u200e\u202a\u2067!help\u2069\u202c\u200f\u061c", "!help"},
		{"Hangul fillers", "\u3164\u115f\u1160\uffa0!help\u3164", "!help"},
		{"invisible operators", "hi\u2063\u2062\u2063", "hi"},
		{"control characters", "\x00!help\x01\x7f\u0085", "!help"},
		{"selector after ASCII", "!help\ufe0f", "!help"},
		{"selector after a space", "!help \ufe0f", "!help"},
		{"selector after a Latin letter", "caf\u00e9\ufe0f", "caf\u00e9"},
		{"joiner after ASCII", "!help\u200d", "!help"},
		{"Khmer inherent vowel", "!help\u17b4", "!help"},
		{"tag without an emoji", "!help" + england[4:], "!help"},
		{"tag without an end", "hi \U0001f3f4\U000e0067\U000e0062", "hi \U0001f3f4"},
		{"end of a tag alone", "hi \U0001f3f4\U000e007f", "hi \U0001f3f4"},

		{"inside", "a\u200bb \u034f c", "a\u200bb \u034f c"},
		{"heart", "hi \u2764\ufe0f", "hi \u2764\ufe0f"},
		{"heart and space", "hi \u2764\ufe0f \U000e0000", "hi \u2764\ufe0f"},
		{"heart and a mark", "hi \u2764\ufe0f\U000e0000\u034f", "hi \u2764\ufe0f"},
		{"heart and two selectors", "\u2764\ufe0f\ufe0f", "\u2764\ufe0f"},
		{"text heart", "\u2764\ufe0e", "\u2764\ufe0e"},
		{"key", "1\ufe0f\u20e3", "1\ufe0f\u20e3"},
		{"interrobang", "\u2049\ufe0f", "\u2049\ufe0f"},
		{"information", "\u2139\ufe0f", "\u2139\ufe0f"},
		{"registered", "\u00ae\ufe0f", "\u00ae\ufe0f"},
		{"family", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\u200d\U0001f469\u200d\U0001f467"},
		{"couple", "\U0001f469\u200d\u2764\ufe0f\u200d\U0001f469", "\U0001f469\u200d\u2764\ufe0f\u200d\U0001f469"},
		{"rainbow", "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f3f3\ufe0f\u200d\U0001f308"},
		{"doctor", "\U0001f9d1\U0001f3fd\u200d\u2695\ufe0f", "\U0001f9d1\U0001f3fd\u200d\u2695\ufe0f"},
		{"joiner after an emoji", "\U0001f468\u200d", "\U0001f468"},
		{"skin", "\U0001f44d\U0001f3fd", "\U0001f44d\U0001f3fd"},
		{"country", "\U0001f1ec\U0001f1e7", "\U0001f1ec\U0001f1e7"},
		{"England", england, england},
		{"England with text", "go " + england + "\u034f", "go " + england},
		{"England twice", england + england, england + england},
		{"ideograph with a selector", "\u845b\U000e0100", "\u845b\U000e0100"},
		{"Mongolian selector", "\u1820\u180b", "\u1820\u180b"},
		{"Malayalam chillu", "\u0d05\u0d35\u0d28\u0d4d\u200d", "\u0d05\u0d35\u0d28\u0d4d\u200d"},
		{"Persian he", "\u0647\u200d", "\u0647\u200d"},
		{"Arabic number sign", "\u06001", "\u06001"},
		{"accent alone", "\u0301", "\u0301"},
		{"replacement character", "\ufffd", "\ufffd"},
		{"object", "\ufffc", "\ufffc"},
		{"braille", "\u2801", "\u2801"},
	} {
		if got := Trim(tt.in); got != tt.want {
			t.Errorf("%s: %+q becomes %+q; want %+q", tt.name, tt.in, got, tt.want)
		}
	}
}

// Each of these characters alone is a text without anything visible.
func TestNothingVisible(t *testing.T) {
	for _, r := range "\u0000\t\n\r \u0085\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b\u180e\u2000\u200a\u200b\u200c\u200d\u200e" +
		"\u200f\u2028\u2029\u202a\u202e\u202f\u205f\u2060\u2063\u2064\u2066\u2069\u206f\u2800\u3000\u3164\ufe00\ufe0f\ufeff\uffa0" +
		"\U0001d173\U000e0000\U000e0001\U000e0020\U000e0067\U000e007f\U000e0100\U000e01ef\U000e0fff" {
		for _, text := range []string{string(r), strings.Repeat(string(r), 3), " " + string(r) + "\u200b", "\u2063\u2062\u2063" + string(r)} {
			if got := Trim(text); got != "" {
				t.Errorf("%U: %+q becomes %+q", r, text, got)
			}
		}
	}
}

func FuzzTrim(f *testing.F) {
	for _, seed := range []string{"", " a ", "\u2764\ufe0f", england, england[4:], "\u200d\ufe0f", "\u0d4d\u200d", "\xff \xf0\x9f"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := Trim(text)
		if !strings.Contains(text, got) || Trim(got) != got {
			t.Errorf("%+q becomes %+q, then %+q", text, got, Trim(got))
		}
		if utf8.ValidString(text) && strings.TrimSpace(got) != got {
			t.Errorf("%+q becomes %+q, with white space", text, got)
		}
	})
}

func TestMentions(t *testing.T) {
	for _, tt := range []struct {
		text string
		want bool
	}{
		{"@parley", true}, {"@Parley hi", true}, {"@PARLEY, hi", true}, {"hi @parley.", true}, {"hi @parley...", true}, {"(@parley)", true},
		{"how are you, @parley?", true}, {"@parley's", true}, {"@parley\u034f", true}, {"@parley\ufe0f", true}, {"\u200b@parley", true},
		{"@parley: hi", true}, {"@\uc0c8 hi", true}, {"@Mr Parley hi", true}, {"@@parley", true}, {"\u3042\u3001@parley", true},
		{"", false}, {"@", false}, {"parley", false}, {"@ parley", false}, {"@parleybot", false}, {"@parley_", false}, {"@parley2", false},
		{"ada@parley", false}, {"@parley.fan hi", false}, {"@\u200bparley", false}, {"@parle", false}, {"@\uc0c8\uc57c hi", false},
	} {
		if got := Mentions(tt.text, "", "parley", "\uc0c8", "mr parley"); got != tt.want {
			t.Errorf("%+q: %t", tt.text, got)
		}
	}
	if Mentions("@ @", "", "") {
		t.Error("an empty name is mentioned")
	}
}
