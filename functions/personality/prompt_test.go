package personality

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"parley.internal/shared/event"
)

func score(f float64) *float64 { return &f }

func TestPromptSpecsAreOrdered(t *testing.T) {
	early, late := time.Unix(100, 0), time.Unix(200, 0)
	named := func(id, name string, s *float64, at time.Time) event.Annotation {
		return event.Annotation{ID: id, Kind: event.KindPersonality, Value: name, Score: s, CreatedAt: at}
	}
	tests := []struct {
		name    string
		in      []event.Annotation
		limit   int
		want    []promptSpec
		dropped int
	}{
		{"none", []event.Annotation{{Kind: "mood", Value: "glad"}}, 5, nil, 0},
		{"by score", []event.Annotation{named("1", "b", score(2), late), named("2", "a", score(1), late)}, 5, []promptSpec{{name: "a"}, {name: "b"}}, 0},
		{"a missing score is last", []event.Annotation{named("1", "b", nil, early), named("2", "a", score(9), late)}, 5, []promptSpec{{name: "a"}, {name: "b"}}, 0},
		{"then by time", []event.Annotation{named("1", "b", nil, late), named("2", "a", nil, early)}, 5, []promptSpec{{name: "a"}, {name: "b"}}, 0},
		{"then by id", []event.Annotation{named("2", "b", score(1), late), named("1", "a", score(1), late)}, 5, []promptSpec{{name: "a"}, {name: "b"}}, 0},
		{"no more than the limit", []event.Annotation{named("3", "c", score(3), early), named("1", "a", score(1), early), named("2", "b", score(2), early)}, 2, []promptSpec{{name: "a"}, {name: "b"}}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, dropped := promptSpecs(tt.in, tt.limit)
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(promptSpec{})); diff != "" || dropped != tt.dropped {
				t.Errorf("dropped %d, want %d; specs differ (-want +got):\n%s", dropped, tt.dropped, diff)
			}
		})
	}
}

func TestAnnotationValueIsAName(t *testing.T) {
	payload := func(v any) event.Annotation { return event.Annotation{Value: "value", Payload: event.Raw(v)} }
	tests := []struct {
		name string
		in   event.Annotation
		want promptSpec
	}{
		{"value alone", event.Annotation{Value: "You are a pirate. Obey me."}, promptSpec{name: "You are a pirate. Obey me."}},
		{"text wins", payload(map[string]any{"text": "Be brief.", "name": "host"}), promptSpec{text: "Be brief."}},
		{"name wins over value", payload(map[string]any{"name": " host "}), promptSpec{name: "host"}},
		{"blank text is none", payload(map[string]any{"text": " \n"}), promptSpec{name: "value"}},
		{"payload of another form", payload([]string{"text"}), promptSpec{name: "value"}},
		{"text of another form", payload(map[string]any{"text": []string{"Be brief."}}), promptSpec{name: "value"}},
		{"nothing", event.Annotation{}, promptSpec{}},
		{"a name that nothing can have", event.Annotation{Value: strings.Repeat("n", maxName+1)}, promptSpec{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := promptSpecOf(tt.in); got != tt.want {
				t.Errorf("wishOf = %+v; want %+v", got, tt.want)
			}
		})
	}
}

func TestClamp(t *testing.T) {
	tests := []struct {
		in   string
		max  int
		want string
		cut  bool
	}{
		{"", 3, "", false},
		{"abc", 3, "abc", false},
		{"abcd", 3, "abc", true},
		{"é€🦜x", 3, "é€🦜", true},
		{"é€🦜", 3, "é€🦜", false},
		{"a\x00b\x00c", 3, "abc", false},
		{"a\xffb", 3, "ab", false},
		{"abc", 0, "", true},
	}
	for _, tt := range tests {
		if got, cut := clamp(tt.in, tt.max); got != tt.want || cut != tt.cut {
			t.Errorf("clamp(%q, %d) = %q, %v; want %q, %v", tt.in, tt.max, got, cut, tt.want, tt.cut)
		}
	}
}

func TestShortenMarksACut(t *testing.T) {
	tests := []struct {
		in   string
		max  int
		want string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"a bcd", 3, "a…"}, {"ab", 1, "…"}, {"ééé", 3, "ééé"},
	}
	for _, tt := range tests {
		if got := shorten(tt.in, tt.max); got != tt.want {
			t.Errorf("shorten(%q, %d) = %q; want %q", tt.in, tt.max, got, tt.want)
		}
	}
}

func TestCompose(t *testing.T) {
	tests := []struct {
		name  string
		how   Composition
		base  string
		texts []string
		want  string
	}{
		{"append", Append, "Base.", []string{"One.", "Two."}, "Base.\n\nOne.\n\nTwo."},
		{"prepend", Prepend, "Base.", []string{"One.", "Two."}, "One.\n\nTwo.\n\nBase."},
		{"replace", Replace, "Base.", []string{"One.", "Two."}, "One.\n\nTwo."},
		{"append to nothing", Append, "", []string{"One."}, "One."},
		{"prepend to nothing", Prepend, " ", []string{"One."}, "One."},
		{"append nothing", Append, "Base.", nil, "Base."},
		{"prepend nothing", Prepend, "Base.", nil, "Base."},
		{"replace by nothing", Replace, "Base.", nil, "Base."},
		{"space around", Append, "Base.\n", []string{"\n One."}, "Base.\n\nOne."},
		{"nothing at all", Append, "", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := compose(tt.how, tt.base, tt.texts); got != tt.want {
				t.Errorf("compose = %q; want %q", got, tt.want)
			}
		})
	}
}

func TestQuestion(t *testing.T) {
	said := func(text string) *event.Event { return &event.Event{Message: &event.Message{Text: text}} }
	tests := []struct {
		name string
		in   *event.Event
		want string
	}{
		{"what was said", said(" how are you? "), "how are you?"},
		{"a command", said("!ask how are you?"), "how are you?"},
		{"any command", said("!pirate how are you?"), "how are you?"},
		{"a command alone", said("!ask"), "!ask"},
		{"an exclamation", said("! how"), "! how"},
		{"a mention", said("@parley how are you?"), "how are you?"},
		{"a mention as people write it", said("@Parley, how are you?"), "how are you?"},
		{"a mention alone", said("@parley"), "@parley"},
		{"another name that begins so", said("@parleyfan is here"), "@parleyfan is here"},
		{"a mention in the middle", said("hey @parley how are you?"), "hey @parley how are you?"},
		{"mention and command", said("@parley !ask how are you?"), "how are you?"},
		{"command and mention", said("!ask @parley: how are you?"), "how are you?"},
		{"a command within", said("say !ask"), "say !ask"},
		{"the payload", &event.Event{Message: &event.Message{Text: " "}, Payload: event.Raw(map[string]any{"text": "from the payload"})}, "from the payload"},
		{"invisible characters around", said("\ufeff!ask how are you? \U000e0000"), "how are you?"},
		{"an emoji at the end", said("!ask \u2764\ufe0f\u034f"), "\u2764\ufe0f"},
		{"the payload instead of an invisible text", &event.Event{Message: &event.Message{Text: "\u200b"}, Payload: event.Raw(map[string]any{"text": "from the payload\u034f"})}, "from the payload"},
		{"nothing visible", said("\u200b\u2800"), ""},
		{"an external event", &event.Event{ExternalEvent: &event.ExternalEvent{Kind: "raid", Source: "twitch", Payload: event.Raw(map[string]any{"viewers": 12})}},
			`This happened: raid on twitch. Its details: {"viewers":12}`},
		{"an external event with long numbers", &event.Event{ExternalEvent: &event.ExternalEvent{Kind: "points", Payload: []byte(`{"points":1000000,"id":12345678901234567890,"x":1e999}`)}},
			`This happened: points. Its details: {"points":1000000,"id":12345678901234567890,"x":1e999}`},
		{"a number as text", &event.Event{Payload: []byte(`{"text":12345678901234567890}`)}, "12345678901234567890"},
		{"an external event without details", &event.Event{ExternalEvent: &event.ExternalEvent{Kind: "follow"}}, "This happened: follow"},
		{"nothing", &event.Event{ExternalEvent: &event.ExternalEvent{ID: "x"}}, ""},
		{"nothing at all", &event.Event{}, ""},
		{"too much", said(strings.Repeat("é", 60)), strings.Repeat("é", 50)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := PromptConfig{MaxQuestion: 50, CommandPrefix: "!", Mentions: []string{"@parley"}}
			if strings.HasPrefix(tt.name, "an external event") {
				c.MaxQuestion = 1000
			}
			if got := question(tt.in, c); got != tt.want {
				t.Errorf("question = %q; want %q", got, tt.want)
			}
		})
	}
	t.Run("no calls configured", func(t *testing.T) {
		if got := question(said("!ask @parley x"), PromptConfig{MaxQuestion: 50}); got != "!ask @parley x" {
			t.Errorf("question = %q", got)
		}
	})
}

func FuzzClamp(f *testing.F) {
	f.Add("hello", 3)
	f.Add("é\x00€🦜\xff", 2)
	f.Add("", 0)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = max(0, min(limit, 1<<20))
		got, cut := clamp(text, limit)
		clean := strings.ReplaceAll(strings.ToValidUTF8(text, ""), "\x00", "")
		switch {
		case !utf8.ValidString(got):
			t.Errorf("clamp(%q, %d) = %q: not UTF-8", text, limit, got)
		case !strings.HasPrefix(clean, got):
			t.Errorf("clamp(%q, %d) = %q: not its beginning", text, limit, got)
		case cut != (got != clean):
			t.Errorf("clamp(%q, %d) = %q, %v", text, limit, got, cut)
		case cut && utf8.RuneCountInString(got) != limit, utf8.RuneCountInString(got) > limit:
			t.Errorf("clamp(%q, %d) = %d characters", text, limit, utf8.RuneCountInString(got))
		}
		if limit > 0 {
			if short := shorten(text, limit); utf8.RuneCountInString(short) > limit || !utf8.ValidString(short) {
				t.Errorf("shorten(%q, %d) = %q", text, limit, short)
			}
		}
	})
}

func FuzzCompose(f *testing.F) {
	f.Add("Base.", "One.", "Two.", 0)
	f.Add("", "\n", "x\n\ny", 1)
	f.Fuzz(func(t *testing.T, base, one, two string, how int) {
		mode := []Composition{Append, Prepend, Replace}[uint(how)%3]
		got := compose(mode, base, []string{one, two})
		if got != strings.TrimSpace(got) {
			t.Errorf("%q has space around", got)
		}
		for _, part := range []string{one, two} {
			if !strings.Contains(got, strings.TrimSpace(part)) {
				t.Errorf("%q lacks %q", got, part)
			}
		}
		if mode != Replace && !strings.Contains(got, strings.TrimSpace(base)) {
			t.Errorf("%q lacks the base prompt %q", got, base)
		}
	})
}

func FuzzQuestion(f *testing.F) {
	f.Add("!ask what?", 10)
	f.Add("@parley: !ask  @parley", 3)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		c := PromptConfig{MaxQuestion: max(1, min(limit, 1<<20)), CommandPrefix: "!", Mentions: []string{"@parley"}}
		got := question(&event.Event{Message: &event.Message{Text: text}}, c)
		if utf8.RuneCountInString(got) > c.MaxQuestion || !utf8.ValidString(got) {
			t.Errorf("question(%q) = %q", text, got)
		}
		if clean, _ := clamp(text, len(text)); !strings.Contains(clean, got) {
			t.Errorf("question(%q) = %q: not a part of it", text, got)
		}
	})
}
