package answer

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"parley.internal/shared/identity"
)

// Links and e-mail addresses hold an @ that mentions nobody. Twitch also links addresses without https://.
var (
	linkAnywhere  = regexp.MustCompile(`(?i)\b(?:https?|steam|ftp)://[^\s<>]+|\b(?:[a-z0-9-]+\.)+[a-z]{2,}/[^\s<>]*`)
	emailAnywhere = regexp.MustCompile(`(?i)[a-z0-9!#$%&'*+/=?^_{|}~.-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}`)
)

// The mentions of the platforms, from their @ on.
var (
	everyone  = regexp.MustCompile(`^@(?i:everyone|here)`)
	onDiscord = regexp.MustCompile(`^@[!&]?[0-9]+>`)
	onTwitch  = regexp.MustCompile(`^@[\pL\p{Nd}_]+`)
)

// links returns for each byte of a text whether it belongs to a link or an e-mail address.
func links(text string) []bool {
	in := make([]bool, len(text))
	for _, pattern := range []*regexp.Regexp{linkAnywhere, emailAnywhere} {
		for _, found := range pattern.FindAllStringIndex(text, -1) {
			for i := found[0]; i < found[1]; i++ {
				in[i] = true
			}
		}
	}
	return in
}

// guardMentions inserts the guard behind each @ for which mentions(before, after) holds, except if the mention at i is
// the operator's.
func (r Rendered) guardMentions(mentions func(before, after string) bool, operators func(r Rendered, i int) bool) words {
	in := links(r.text)
	rings := r.platform == identity.Discord && r.ringsEveryone()
	return r.rewrite(func(i int) (int, string) {
		switch before, after := r.text[:i], r.text[i+1:]; {
		case r.text[i] != '@' || !mentions(before, after) || operators(r, i):
			return 0, ""
		case !in[i]:
			return 1, "@" + guard
		case rings && everyone.MatchString(r.text[i:]):
			return 1, "%40" // Discord's permission to notify everyone counts for the whole message
		}
		return 0, ""
	})
}

// ringsEveryone reports whether the operator's text mentions everyone.
func (r Rendered) ringsEveryone() bool {
	for i := range len(r.text) {
		if r.text[i] != '@' {
			continue
		}
		if end := i + len(everyone.FindString(r.text[i:])); end > i && r.allOwn(i, end) {
			return true
		}
	}
	return false
}

func mentionsOnDiscord(before, after string) bool {
	if strings.HasSuffix(before, "<") {
		id := strings.TrimLeft(after, "!&")
		return id != "" && id[0] >= '0' && id[0] <= '9'
	}
	return everyoneOnDiscord(before, after)
}

func everyoneOnDiscord(_, after string) bool { return everyone.MatchString("@" + after) }

func mentionsOnTwitch(before, after string) bool {
	first, _ := utf8.DecodeRuneInString(after)
	last, _ := utf8.DecodeLastRuneInString(before)
	return inName(first) && !inName(last) && !strings.HasPrefix(after, "https://") && !strings.HasPrefix(after, "http://")
}

// inName includes letters of other scripts, because Twitch shows names in other scripts.
func inName(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// wholeOnDiscord reports whether the operator wrote the whole mention with an @ at i.
func (r Rendered) wholeOnDiscord(i int) bool {
	if end := i + len(everyone.FindString(r.text[i:])); end > i {
		return r.allOwn(i, end)
	}
	end := i + len(onDiscord.FindString(r.text[i:]))
	return end > i && i > 0 && r.allOwn(i-1, end)
}

// wholeOnTwitch reports whether the operator wrote the whole mention with an @ at i. Outside of relays the operator may
// mention somebody by an inserted name, as in @{{ event.user.displayName }}.
func (r Rendered) wholeOnTwitch(i int) bool {
	if !r.relayed {
		return r.own[i]
	}
	end := i + len(onTwitch.FindString(r.text[i:]))
	return end > i && r.allOwn(i, end)
}
