package answer

import (
	"regexp"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// Span is a part of a text: the bytes from Span[0] up to Span[1].
type Span [2]int

// templateMetadata is the metadata of a candidate made from an operator's template.
type templateMetadata struct {
	Literal *[]Span `json:"literal"`
}

// TemplateMetadata returns the metadata of a candidate made from an operator's template. literal holds the spans of the
// candidate's text that the operator wrote, in order and without overlaps. The rest of the text was inserted, and may
// hold another person's words.
//
// Mentions in literal spans notify people. Inserted text notifies nobody ([SanitizeMentions]), and text inserted from
// another platform has no markup on Discord.
func TemplateMetadata(literal []Span) jsontext.Value {
	literal = append([]Span{}, literal...) // an empty list is not null
	return event.Raw(templateMetadata{&literal})
}

// LiteralParts returns the parts of an event's answer that an operator wrote literally. The text of a model, or of
// another program, has none.
func LiteralParts(e *event.Event) []string {
	i := Best(e.Candidates)
	if i < 0 {
		return nil
	}
	var literal []string
	for _, p := range segments(e.Candidates[i]) {
		if p.literal {
			literal = append(literal, p.text)
		}
	}
	return literal
}

// segment is a part of a template's text.
type segment struct {
	text    string
	literal bool
}

// segments returns the parts of a candidate's text. The result is nil if the candidate was not made from a template, or
// if its text has changed.
func segments(c event.Candidate) []segment {
	var m templateMetadata
	if len(c.Metadata) == 0 || json.Unmarshal(c.Metadata, &m) != nil || m.Literal == nil {
		return nil
	}
	var parts []segment
	done := 0
	for _, s := range *m.Literal {
		if s[0] < done || s[1] < s[0] || s[1] > len(c.Text) {
			return nil
		}
		parts = append(parts, segment{c.Text[done:s[0]], false}, segment{c.Text[s[0]:s[1]], true})
		done = s[1]
	}
	return append(parts, segment{c.Text[done:], false})
}

// setSegments replaces the text of a candidate.
func setSegments(c *event.Candidate, parts []segment) {
	var b strings.Builder
	var literal []Span
	for _, p := range parts {
		from := b.Len()
		b.WriteString(p.text)
		if p.literal && p.text != "" {
			literal = append(literal, Span{from, b.Len()})
		}
	}
	c.Text, c.Metadata = b.String(), TemplateMetadata(literal)
}

// relayTemplate adapts a template's text for an address on the platform to. The operator's text stays.
func relayTemplate(parts []segment, from, to identity.Platform) []segment {
	inserted := false
	for i := range parts {
		p := &parts[i]
		p.text = RemoveMark(p.text)
		if !p.literal && p.text != "" {
			inserted = true
			if to == identity.Discord || to == identity.Twitch {
				p.text = clean(p.text)
			}
		}
	}
	parts = trimSegments(parts)
	if to == identity.Discord && from != identity.Discord {
		before := ""
		for i := range parts {
			if p := &parts[i]; !p.literal {
				p.text = escapeMarkdown(before, p.text)
			}
			before += parts[i].text
		}
	}
	switch to {
	case identity.Discord:
		parts = guardInserted(parts, mentionsOnDiscord, ownOnDiscord)
	case identity.Twitch:
		parts = guardInserted(parts, mentionsOnTwitch, ownOnTwitch)
		if text := join(parts); inserted && text != "" && strings.ContainsRune("/.!", rune(text[0])) {
			parts = append([]segment{{guard, false}}, parts...)
		}
	}
	return markSegments(parts)
}

// join returns the whole text.
func join(parts []segment) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.text)
	}
	return b.String()
}

// The mentions of the platforms, from their @ on.
var (
	ownOnDiscord = regexp.MustCompile(`^@(?:(?i:everyone|here)|[!&]?[0-9]+>)`)
	ownOnTwitch  = regexp.MustCompile(`^@[\pL\p{Nd}_]+`)
	everyone     = regexp.MustCompile(`^@(?i:everyone|here)`)
)

// guardInserted inserts the guard behind each @ for which mentions(before, after) holds, except in a mention that
// stands whole in the operator's text. own matches such a mention.
func guardInserted(parts []segment, mentions func(before, after string) bool, own *regexp.Regexp) []segment {
	whole := join(parts)
	var guarded []segment
	offset := 0
	for n, p := range parts {
		var b strings.Builder
		for i := range len(p.text) {
			b.WriteByte(p.text[i])
			if p.text[i] != '@' || !mentions(whole[:offset+i], whole[offset+i+1:]) {
				continue
			}
			found := own.FindString(p.text[i:])
			ends := i+len(found) < len(p.text) || n == len(parts)-1 || own != ownOnTwitch // inserted text could continue a name
			if !p.literal || found == "" || !ends {
				b.WriteString(guard)
			}
		}
		offset += len(p.text)
		guarded = append(guarded, segment{b.String(), p.literal})
	}
	return guarded
}

// guardEveryone inserts the guard into the mentions @everyone and @here of inserted text. Discord's permission to notify
// everyone counts for a whole message, so inserted text must not use the operator's.
func guardEveryone(c *event.Candidate) {
	if parts := segments(*c); parts != nil {
		setSegments(c, guardInserted(parts, func(_, after string) bool { return everyone.MatchString("@" + after) }, everyone))
	}
}

// trimSegments removes white space from both ends of a text.
func trimSegments(parts []segment) []segment {
	parts = append([]segment(nil), parts...)
	for i := range parts {
		if parts[i].text = strings.TrimLeftFunc(parts[i].text, unicode.IsSpace); parts[i].text != "" {
			break
		}
	}
	for i := len(parts) - 1; i >= 0; i-- {
		if parts[i].text = strings.TrimRightFunc(parts[i].text, unicode.IsSpace); parts[i].text != "" {
			break
		}
	}
	return parts
}

// markSegments inserts the mark, as marked does.
func markSegments(parts []segment) []segment {
	at := strings.Index(marked(join(parts)), mark)
	for i, p := range parts {
		if at <= len(p.text) {
			parts[i].text = p.text[:at] + mark + p.text[at:]
			return parts
		}
		at -= len(p.text)
	}
	return parts
}
