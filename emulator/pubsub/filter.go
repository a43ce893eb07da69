package pubsub

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxFilterBytes is the service's limit on the length of a filter.
const maxFilterBytes = 256

// filter reports whether a subscription accepts a message with the given attributes. The nil filter accepts all.
type filter func(attributes map[string]string) bool

// match reports whether the filter accepts a message with the given attributes.
func (f filter) match(attributes map[string]string) bool {
	return f == nil || f(attributes)
}

// parseFilter parses a filter of https://cloud.google.com/pubsub/docs/subscription-message-filter:
//
//	filter     = term { "AND" term } | term { "OR" term }
//	term       = [ "NOT" | "-" ] ( "(" filter ")" | comparison | prefix )
//	comparison = "attributes" ":" key
//	           | "attributes" "." key ( "=" | "!=" ) string
//	prefix     = "hasPrefix" "(" "attributes" "." key "," string ")"
//	key        = ( letter | digit | "-" | "_" ) { ... } | string
//
// AND and OR do not mix without parentheses. Operators are upper case. A string is in double quotes with the escapes of
// C. "!=" also accepts messages without the key. The empty text is the nil filter.
func parseFilter(text string) (filter, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > maxFilterBytes {
		return nil, fmt.Errorf("the filter has %d bytes, more than %d", len(text), maxFilterBytes)
	}
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("the filter is not UTF-8")
	}
	p := filterParser{text: text}
	p.next()
	f, err := p.expression()
	if err != nil {
		return nil, err
	}
	if p.kind != endToken {
		return nil, p.unexpected("AND, OR or the end")
	}
	return f, nil
}

type tokenKind uint8

const (
	endToken   tokenKind = iota
	wordToken            // a bare key, an operator word, attributes, hasPrefix
	textToken            // a string, unquoted in filterParser.token
	markToken            // : . = != ( ) ,
	wrongToken           // token describes the mistake
)

type filterParser struct {
	text  string
	at    int // offset after the token
	start int // offset of the token
	kind  tokenKind
	token string
}

func isKeyByte(c byte) bool {
	return c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func (p *filterParser) next() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
	p.start = p.at
	if p.at == len(p.text) {
		p.kind, p.token = endToken, ""
		return
	}
	rest := p.text[p.at:]
	take := func(kind tokenKind, n int) {
		p.kind, p.token = kind, rest[:n]
		p.at += n
	}
	switch c := rest[0]; {
	case c == '"':
		n := 1
		for n < len(rest) && rest[n] != '"' {
			if rest[n] == '\\' {
				n++
			}
			n++
		}
		if n >= len(rest) {
			p.kind, p.token = wrongToken, "a string without its closing quote"
			return
		}
		s, err := strconv.Unquote(rest[:n+1])
		if err != nil {
			p.kind, p.token = wrongToken, "a string with a bad escape or character"
			return
		}
		take(textToken, n+1)
		p.token = s
	case strings.HasPrefix(rest, "!="):
		take(markToken, 2)
	case strings.IndexByte(":.=(),", c) >= 0:
		take(markToken, 1)
	case isKeyByte(c):
		n := 1
		for n < len(rest) && isKeyByte(rest[n]) {
			n++
		}
		take(wordToken, n)
	default:
		r, n := utf8.DecodeRuneInString(rest)
		p.kind, p.token = wrongToken, fmt.Sprintf("the character %q", r)
		p.at += n
	}
}

func (p *filterParser) unexpected(want string) error {
	got := strconv.Quote(p.token)
	switch p.kind {
	case endToken:
		got = "the end"
	case wrongToken:
		got = p.token
	}
	return fmt.Errorf("at byte %d: %s, want %s", p.start, got, want)
}

func (p *filterParser) mark(m string) error {
	if p.kind != markToken || p.token != m {
		return p.unexpected(strconv.Quote(m))
	}
	p.next()
	return nil
}

func (p *filterParser) isWord(w string) bool { return p.kind == wordToken && p.token == w }

func (p *filterParser) expression() (filter, error) {
	f, err := p.term()
	if err != nil {
		return nil, err
	}
	joint := p.token
	if !p.isWord("AND") && !p.isWord("OR") {
		return f, nil
	}
	terms := []filter{f}
	for p.isWord("AND") || p.isWord("OR") {
		if p.token != joint {
			return nil, fmt.Errorf("at byte %d: AND and OR need parentheses to be combined", p.start)
		}
		p.next()
		f, err := p.term()
		if err != nil {
			return nil, err
		}
		terms = append(terms, f)
	}
	// The first false term decides an AND, the first true term an OR.
	decides := joint == "OR"
	return func(a map[string]string) bool {
		for _, t := range terms {
			if t(a) == decides {
				return decides
			}
		}
		return !decides
	}, nil
}

func (p *filterParser) term() (filter, error) {
	negated := false
	switch {
	case p.isWord("NOT"):
		negated = true
		p.next()
	case p.kind == wordToken && p.token[0] == '-':
		// The scanner read the minus as the start of a key.
		negated = true
		p.at = p.start + 1
		p.next()
	}
	f, err := p.simple()
	if err != nil || !negated {
		return f, err
	}
	return func(a map[string]string) bool { return !f(a) }, nil
}

func (p *filterParser) simple() (filter, error) {
	switch {
	case p.kind == markToken && p.token == "(":
		p.next()
		f, err := p.expression()
		if err != nil {
			return nil, err
		}
		return f, p.mark(")")
	case p.isWord("hasPrefix"):
		return p.prefix()
	case p.isWord("attributes"):
		return p.comparison()
	}
	return nil, p.unexpected("attributes, hasPrefix, NOT or a parenthesis")
}

func (p *filterParser) comparison() (filter, error) {
	p.next()
	if p.kind == markToken && p.token == ":" {
		p.next()
		key, err := p.key()
		return func(a map[string]string) bool { _, ok := a[key]; return ok }, err
	}
	key, err := p.dotKey()
	if err != nil {
		return nil, err
	}
	equal := p.token == "="
	if p.kind != markToken || !equal && p.token != "!=" {
		return nil, p.unexpected("= or !=")
	}
	p.next()
	value, err := p.value()
	return func(a map[string]string) bool {
		v, ok := a[key]
		return (ok && v == value) == equal
	}, err
}

func (p *filterParser) prefix() (filter, error) {
	p.next()
	if err := p.mark("("); err != nil {
		return nil, err
	}
	if !p.isWord("attributes") {
		return nil, p.unexpected("attributes")
	}
	p.next()
	key, err := p.dotKey()
	if err != nil {
		return nil, err
	}
	if err := p.mark(","); err != nil {
		return nil, err
	}
	value, err := p.value()
	if err != nil {
		return nil, err
	}
	return func(a map[string]string) bool {
		v, ok := a[key]
		return ok && strings.HasPrefix(v, value)
	}, p.mark(")")
}

func (p *filterParser) dotKey() (string, error) {
	if err := p.mark("."); err != nil {
		return "", err
	}
	return p.key()
}

func (p *filterParser) key() (string, error) {
	if p.kind != wordToken && p.kind != textToken {
		return "", p.unexpected("a key")
	}
	key := p.token
	p.next()
	return key, nil
}

func (p *filterParser) value() (string, error) {
	if p.kind != textToken {
		return "", p.unexpected("a string in double quotes")
	}
	value := p.token
	p.next()
	return value, nil
}
