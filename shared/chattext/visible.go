// Package chattext reads texts that people typed in a chat: [Trim] removes what nobody sees at the ends of a text, and
// [Mentions] finds a mention of a name. The functions are pure and safe for concurrent use.
package chattext

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Trim returns a text without white space, control characters and invisible characters at both ends. It is empty for a
// text in which nothing is visible. Chat programs append invisible characters to a repeated message, because Twitch
// refuses the same text twice within 30 seconds: U+034F, U+2800, U+E0000 and others.
//
// Characters inside the text stay. An invisible character at the end stays, too, if the visible character before needs
// it: the end of an emoji or of a flag, or the joiner that gives a letter its form.
//
// A text that Parley relayed carries an invisible mark, possibly at its end. The caller must look for the mark first.
func Trim(text string) string {
	text = strings.TrimLeftFunc(text, Invisible)
	for text != "" {
		last, size := utf8.DecodeLastRuneInString(text)
		before := text[:len(text)-size]
		if !Invisible(last) || completes(before, last) {
			break
		}
		text = before
	}
	return text
}

// blankBraille is the braille pattern without dots. Unicode counts it as a symbol, but it has no ink.
const blankBraille = '\u2800'

// Invisible reports whether a character has no ink of its own: white space, a control character, a format character, a
// variation selector, or another character that Unicode ignores by default
// (https://www.unicode.org/reports/tr44/#Default_Ignorable_Code_Point). The number signs of Arabic and Kaithi are format
// characters with ink, and therefore visible.
func Invisible(r rune) bool {
	switch {
	case unicode.IsSpace(r), unicode.IsControl(r), r == blankBraille:
		return true
	case unicode.Is(unicode.Cf, r):
		return !unicode.Is(unicode.Prepended_Concatenation_Mark, r)
	}
	return unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// The characters that end a sequence of several characters.
const (
	joiner    = '\u200d'     // the zero width joiner
	firstTag  = '\U000e0020' // the first and the last letter of a tag (https://www.unicode.org/reports/tr51/#def_emoji_tag_sequence)
	lastTag   = '\U000e007e'
	cancelTag = '\U000e007f'
	infoSign  = '\u2139' // the only emoji that Unicode counts as a letter of Latin
)

// completes reports whether an invisible character at the end of a text changes the look of the character before.
func completes(before string, last rune) bool {
	base, _ := utf8.DecodeLastRuneInString(before)
	switch {
	case unicode.Is(unicode.Variation_Selector, last):
		return takesSelector(base)
	case last == joiner:
		return takesJoiner(base)
	case last == cancelTag:
		return endsInTag(before)
	}
	return false
}

// takesSelector reports whether a variation selector can follow a character: an emoji, another symbol, or a letter of a
// script without cases (https://www.unicode.org/Public/UCD/latest/ucd/StandardizedVariants.txt). ASCII is left out: there,
// a selector alone changes nothing that a person sees.
func takesSelector(base rune) bool {
	if base < utf8.RuneSelf || base == utf8.RuneError || Invisible(base) {
		return false
	}
	return unicode.In(base, unicode.S, unicode.P, unicode.Lo) || base == infoSign
}

// takesJoiner reports whether a joiner after a character changes its form: a letter of a script whose letters join, or
// a sign such as a virama (https://www.unicode.org/versions/latest/core-spec/chapter-23/#G23.24934).
func takesJoiner(base rune) bool {
	if Invisible(base) {
		return false
	}
	return unicode.In(base, unicode.Arabic, unicode.Syriac, unicode.Mongolian, unicode.Nko) ||
		unicode.IsMark(base) && !unicode.Is(unicode.Inherited, base)
}

// endsInTag reports whether a text ends with an emoji and the letters of a tag, as the flag of England does.
func endsInTag(text string) bool {
	base := strings.TrimRightFunc(text, func(r rune) bool { return r >= firstTag && r <= lastTag })
	if len(base) == len(text) {
		return false
	}
	last, size := utf8.DecodeLastRuneInString(base)
	if unicode.Is(unicode.Variation_Selector, last) {
		last, _ = utf8.DecodeLastRuneInString(base[:len(base)-size])
	}
	return !Invisible(last) && unicode.Is(unicode.S, last)
}
