package answer

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/event"
)

// Span is a part of a text: the bytes from Span[0] up to Span[1].
type Span [2]int

// templateMetadata is the metadata of a candidate made from an operator's template.
type templateMetadata struct {
	Literal *[]Span `json:"literal"`
}

// TemplateMetadata returns the metadata of a candidate made from an operator's template. literal holds the spans of the
// candidate's text that the operator wrote, in order and without overlaps. The rest of the text was inserted, and may
// hold another person's words. [Render] treats the two differently.
func TemplateMetadata(literal []Span) jsontext.Value {
	literal = append([]Span{}, literal...) // an empty list is not null
	return event.Raw(templateMetadata{&literal})
}

// LiteralParts returns the parts of an event's answer that an operator wrote literally. The text of a model, or of
// another program, has none.
func LiteralParts(e *event.Event) []string {
	w, _ := wordsOf(e)
	var literal []string
	for _, r := range w.runs() {
		if r.own[0] {
			literal = append(literal, r.text)
		}
	}
	return literal
}

// wordsOf returns the text of an answer, with its white space, and reports whether a template made it.
func wordsOf(e *event.Event) (w words, template bool) {
	i := Best(e.Candidates)
	if i < 0 {
		return foreign(Text(e)), false
	}
	c := e.Candidates[i]
	w = foreign(c.Text)
	var m templateMetadata
	if len(c.Metadata) == 0 || json.Unmarshal(c.Metadata, &m) != nil || m.Literal == nil {
		return w, false
	}
	done := 0
	for _, s := range *m.Literal {
		if s[0] < done || s[1] < s[0] || s[1] > len(c.Text) {
			return foreign(c.Text), false // not the text that the metadata was made for
		}
		for i := s[0]; i < s[1]; i++ {
			w.own[i] = true
		}
		done = s[1]
	}
	return w, true
}

// runs divides a text into its parts by author. No part is empty.
func (w words) runs() []words {
	var all []words
	from := 0
	for i := 1; i <= len(w.text); i++ {
		if i == len(w.text) || w.own[i] != w.own[from] {
			all = append(all, w.slice(from, i))
			from = i
		}
	}
	return all
}
