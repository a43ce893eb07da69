package personality

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"parley.internal/shared/event"
)

// promptSpec is what one annotation asks for: a text, or the name of a personality. Both are empty if it says neither.
type promptSpec struct {
	text string // inline; wins
	name string // to be looked up
}

// maxName is the most bytes of a personality's name: no document can have a longer one that a query finds
// (https://firebase.google.com/docs/firestore/quotas: 1,500 bytes of an indexed field).
const maxName = 256

// promptSpecs reads an event's personality annotations in the order in which they count, at most limit of them, and tells
// how many more there were.
//
// An annotation's value alone is a name, never a text: whoever could set a value could otherwise instruct the model.
func promptSpecs(annotations []event.Annotation, limit int) (chosen []promptSpec, dropped int) {
	var of []event.Annotation
	for _, a := range annotations {
		if a.Kind == event.KindPersonality {
			of = append(of, a)
		}
	}
	slices.SortStableFunc(of, func(a, b event.Annotation) int {
		return cmp.Or(compareScores(a.Score, b.Score), a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	if len(of) > limit {
		of, dropped = of[:limit], len(of)-limit
	}
	for _, a := range of {
		chosen = append(chosen, promptSpecOf(a))
	}
	return chosen, dropped
}

func compareScores(a, b *float64) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	return cmp.Compare(*a, *b)
}

func promptSpecOf(a event.Annotation) promptSpec {
	if text, ok := event.Text(a.Payload, "text"); ok && !blank(text) {
		return promptSpec{text: text}
	}
	name, _ := event.Text(a.Payload, "name")
	name = strings.TrimSpace(cmp.Or(name, a.Value))
	if len(name) > maxName {
		return promptSpec{}
	}
	return promptSpec{name: name}
}

// clamp frees a text of NULs, which no API takes, and of what is not UTF-8, and cuts it to a number of characters. It
// reports whether it was cut.
func clamp(text string, maxChars int) (string, bool) {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, ""), "\x00", "")
	if len(text) <= maxChars { // bytes are never fewer than characters
		return text, false
	}
	n := 0
	for i := range text {
		if n == maxChars {
			return text[:i], true
		}
		n++
	}
	return text, false
}

// shorten is clamp for what a person reads: it shows that something is missing.
func shorten(text string, maxChars int) string {
	text, cut := clamp(text, maxChars)
	if !cut {
		return text
	}
	text, _ = clamp(text, maxChars-1)
	return strings.TrimRightFunc(text, unicode.IsSpace) + "…"
}

// compose makes one instruction of the base prompt and the personalities' texts.
func compose(how Composition, base string, texts []string) string {
	parts := slices.Clone(texts)
	switch {
	case how == Replace && len(texts) > 0:
	case how == Prepend:
		parts = append(parts, base)
	default:
		parts = append([]string{base}, parts...)
	}
	parts = slices.DeleteFunc(parts, blank)
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return strings.Join(parts, "\n\n")
}

// question is what an event puts to the model: what was said, else the payload's text, else what happened. It is empty
// if the event says nothing.
func question(e *event.Event, c PromptConfig) string {
	text := ""
	if e.Message != nil {
		text = e.Message.Text
	}
	if blank(text) {
		text, _ = event.Text(e.Payload, "text")
	}
	if blank(text) {
		text = describeExternalEvent(e.ExternalEvent)
	} else {
		text = withoutCall(text, c.CommandPrefix, c.Mentions)
	}
	text, _ = clamp(strings.TrimSpace(text), c.MaxQuestion)
	return text
}

// describeExternalEvent words an event that nobody said.
func describeExternalEvent(x *event.ExternalEvent) string {
	if x == nil || x.Kind == "" && len(x.Payload) == 0 {
		return ""
	}
	text := "This happened: " + cmp.Or(x.Kind, "an event")
	if x.Source != "" {
		text += " on " + x.Source
	}
	if len(x.Payload) > 0 {
		text += ". Its details: " + string(x.Payload)
	}
	return text
}

// withoutCall removes what a question begins with only to reach the bot: a mention and a command word, in either
// order. Words that are all there is stay.
func withoutCall(text, prefix string, mentions []string) string {
	rest := strings.TrimSpace(text)
	rest = withoutMention(rest, mentions)
	rest = withoutCommand(rest, prefix)
	return withoutMention(rest, mentions)
}

func withoutMention(text string, mentions []string) string {
	for _, m := range mentions {
		if m = strings.TrimSpace(m); m == "" || len(text) <= len(m) || !strings.EqualFold(text[:len(m)], m) {
			continue
		}
		after := strings.TrimLeft(text[len(m):], ",:")
		if rest := strings.TrimSpace(after); rest != "" && (len(rest) < len(after) || len(after) < len(text)-len(m)) {
			return rest
		}
	}
	return text
}

func withoutCommand(text, prefix string) string {
	if prefix == "" || !strings.HasPrefix(text, prefix) {
		return text
	}
	i := strings.IndexFunc(text, unicode.IsSpace)
	if i <= len(prefix) {
		return text // no word at all ("! what"), or nothing behind it
	}
	return strings.TrimSpace(text[i:])
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }

func isHTTP(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}
