package rule

import (
	"errors"
	"fmt"
	"strings"
)

// part is a part of a template: a literal text, or the source of an expression.
type part struct {
	literal    string
	expression string
	isExpr     bool
}

var errUnclosed = errors.New("{{ without }}")

// split parses a template. An expression may contain braces, and any text within quotes. It ends at the first }} outside
// of quotes that closes no brace of the expression.
func split(template string) ([]part, error) {
	var parts []part
	rest := template
	for {
		literal, after, found := strings.Cut(rest, "{{")
		if literal != "" {
			parts = append(parts, part{literal: literal})
		}
		if !found {
			return parts, nil
		}
		n := expressionEnd(after)
		if n < 0 {
			return nil, fmt.Errorf("at byte %d: %w", len(template)-len(after)-len("{{"), errUnclosed)
		}
		source := strings.TrimSpace(after[:n])
		if source == "" {
			return nil, fmt.Errorf("at byte %d: nothing between {{ and }}", len(template)-len(after)-len("{{"))
		}
		parts = append(parts, part{expression: source, isExpr: true})
		rest = after[n+len("}}"):]
	}
}

// expressionEnd returns the index of the }} that ends the expression at the start of s, or -1.
func expressionEnd(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth == 0 && strings.HasPrefix(s[i:], "}}") {
				return i
			}
			depth--
			if depth < 0 {
				return -1 // unbalanced
			}
		case '"', '\'':
			n := literalLen(s[i:], isRaw(s[:i]))
			if n < 0 {
				return -1
			}
			i += n - 1
		}
	}
	return -1
}

// literalLen returns the length of the string literal at the start of s, or -1 if it is not closed.
func literalLen(s string, raw bool) int {
	quote := s[:1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(s, triple) {
		quote = triple
	}
	for i := len(quote); i < len(s); i++ {
		if s[i] == '\\' && !raw {
			i++
			continue
		}
		if strings.HasPrefix(s[i:], quote) {
			return i + len(quote)
		}
	}
	return -1
}

// isRaw reports whether the text before a quote starts a raw string: r or R, alone or with b.
func isRaw(before string) bool {
	n := len(before)
	for n > 0 && isLetter(before[n-1]) {
		n--
	}
	switch strings.ToLower(before[n:]) {
	case "r", "rb", "br":
		return true
	}
	return false
}

func isLetter(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}
