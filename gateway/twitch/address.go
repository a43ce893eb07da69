package twitch

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"parley.internal/shared/identity"
)

// account is the bot's account, as far as known. The login comes from the token, and the display name from the chat.
type account struct {
	id          identity.UserID
	login       string
	displayName string
}

// mentionedIn reports whether a text mentions the account: @ and the login or the display name, in any case, as a whole
// word.
func (a account) mentionedIn(text string) bool {
	for i := range len(text) {
		if text[i] != '@' {
			continue
		}
		if before, _ := utf8.DecodeLastRuneInString(text[:i]); i > 0 && inName(before) {
			continue // such as in an e-mail address
		}
		for _, name := range []string{a.login, a.displayName} {
			if _, ok := cutName(text[i+1:], name); ok {
				return true
			}
		}
	}
	return false
}

// withoutParent removes the mention of the parent's author from the beginning of a reply. Twitch puts the mention before
// the text that the user typed, with the display name; some programs put the login there. A reply that consists of
// mentions alone stays as it is.
func withoutParent(text, login, displayName string) string {
	rest := text
	for {
		after, ok := cutMention(rest, displayName)
		if !ok {
			after, ok = cutMention(rest, login)
		}
		if !ok {
			break
		}
		rest = after
	}
	if rest == "" {
		return text
	}
	return rest
}

// cutMention removes a mention of a name, and the space behind the mention, from the beginning of a text.
func cutMention(text, name string) (rest string, ok bool) {
	if !strings.HasPrefix(text, "@") {
		return text, false
	}
	rest, ok = cutName(text[1:], name)
	if !ok {
		return text, false
	}
	rest = strings.TrimLeft(rest, ",:")
	if first, _ := utf8.DecodeRuneInString(rest); rest != "" && !unicode.IsSpace(first) {
		return text, false
	}
	return strings.TrimLeftFunc(rest, unicode.IsSpace), true
}

// cutName removes a name, in any case, from the beginning of a text. The name must be a whole word there.
func cutName(text, name string) (rest string, ok bool) {
	if name == "" {
		return text, false
	}
	end := 0
	for range utf8.RuneCountInString(name) {
		if end >= len(text) {
			return text, false
		}
		_, size := utf8.DecodeRuneInString(text[end:])
		end += size
	}
	if next, _ := utf8.DecodeRuneInString(text[end:]); !strings.EqualFold(text[:end], name) || end < len(text) && inName(next) {
		return text, false
	}
	return text[end:], true
}

// inName includes letters of other scripts, because Twitch shows names in other scripts.
func inName(r rune) bool {
	return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) && !invisible(r)
}

// invisible reports a mark that programs append to a repeated message: U+034F has no width and joins no name.
func invisible(r rune) bool { return r == '\u034f' }
