package twitch

import (
	"strings"
	"unicode"
	"unicode/utf8"

	irc "github.com/gempir/go-twitch-irc/v4"

	"parley.internal/shared/answer"
	"parley.internal/shared/chattext"
	"parley.internal/shared/event"
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
	return chattext.Mentions(text, a.login, a.displayName)
}

// addressedBy reports whether a message mentions the account or is a reply to one of its messages. A relayed message is
// another person's, although the account posted it; then only a mention typed by the user counts, and not the mention of
// the account that Twitch puts before a reply.
func (a account) addressedBy(m *irc.PrivateMessage) bool {
	if m.Reply == nil || m.Reply.ParentMsgID == "" || m.Reply.ParentUserID != a.id.ID() {
		return a.mentionedIn(m.Message)
	}
	if !answer.WasRelayed(&event.Event{Message: &event.Message{Text: m.Reply.ParentMsgBody}}) {
		return true
	}
	typed, _ := cutMention(m.Message, m.Reply.ParentDisplayName, m.Reply.ParentUserLogin)
	return a.mentionedIn(typed)
}

// withoutParent removes the mention of the parent's author from the beginning of a reply. Twitch puts the mention before
// the text that the user typed, with the display name; some programs put the login there. A reply that consists of
// mentions alone stays as it is.
func withoutParent(text, login, displayName string) string {
	rest := text
	for {
		after, ok := cutMention(rest, displayName, login)
		if !ok {
			break
		}
		rest = after
	}
	if chattext.Trim(rest) == "" {
		return text
	}
	return rest
}

// cutMention removes a mention of one of the names, and the space behind the mention, from the beginning of a text.
func cutMention(text string, names ...string) (rest string, ok bool) {
	typed, ok := strings.CutPrefix(text, "@")
	if !ok {
		return text, false
	}
	for _, name := range names {
		rest, ok := chattext.CutName(typed, name)
		rest = strings.TrimLeft(rest, ",:")
		if first, _ := utf8.DecodeRuneInString(rest); ok && (rest == "" || unicode.IsSpace(first)) {
			return strings.TrimLeftFunc(rest, unicode.IsSpace), true
		}
	}
	return text, false
}
