package twitch

import (
	"cmp"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"parley.internal/emulator/fake"
)

// sendChatMessage implements https://dev.twitch.tv/docs/api/reference/#send-chat-message
//
// Twitch publishes no list of drop_reason codes. The code of a time-out comes from
// https://github.com/twitchdev/issues/issues/1002; the other codes are the msg-ids of IRC.
func (s *Server) sendChatMessage(c *call) answer {
	var in chatMessageRequest
	if !c.decode(&in) {
		return badRequest("The request body is not valid JSON.")
	}
	in.BroadcasterID = cmp.Or(in.BroadcasterID, c.query("broadcaster_id"))
	in.SenderID = cmp.Or(in.SenderID, c.query("sender_id"))
	p, no, ok := s.newPost(c, in)
	if !ok {
		return no
	}
	type reason struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	type sent struct {
		MessageID  string  `json:"message_id"`
		IsSent     bool    `json:"is_sent"`
		DropReason *reason `json:"drop_reason"`
	}
	var drop *refusal
	if f := s.chatFault(p); f != nil {
		drop = &refusal{f.Notice, noticeText(f.Notice, p.room.name())}
	} else {
		drop = s.admit(p)
	}
	if drop != nil {
		if drop.id == "msg_timedout" {
			drop = &refusal{"user_timed_out", "You are timed out from talking in the room."}
		}
		return success(data([]sent{{DropReason: &reason{drop.id, drop.text}}}))
	}
	return success(data([]sent{{MessageID: s.publish(p).ID, IsSent: true}}))
}

// chatMessageRequest is the body of Send Chat Message. Twitch's page has all fields in the body. Twitch also takes
// broadcaster_id and sender_id from the query, without documenting it: twurple sends the two ids only there
// (https://github.com/twurple/twurple/blob/main/packages/api/src/endpoints/chat/HelixChatApi.ts).
type chatMessageRequest struct {
	BroadcasterID        string `json:"broadcaster_id"`
	SenderID             string `json:"sender_id"`
	Message              string `json:"message"`
	ReplyParentMessageID string `json:"reply_parent_message_id"`
	ForSourceOnly        *bool  `json:"for_source_only"`
}

// newPost checks a request and makes the message. If the request is refused, ok is false and no is the answer.
func (s *Server) newPost(c *call, in chatMessageRequest) (p post, no answer, ok bool) {
	refused := func(a answer) (post, answer, bool) { return post{}, a, false }
	switch {
	case in.BroadcasterID == "":
		return refused(badRequest("The broadcaster_id field is required."))
	case in.SenderID == "":
		return refused(badRequest("The sender_id field is required."))
	case in.Message == "":
		return refused(badRequest("The message field is required."))
	case c.user != nil && in.ForSourceOnly != nil:
		return refused(badRequest("The for_source_only field may be set only with an app access token."))
	case c.user != nil && !c.token.has("user:write:chat"):
		return refused(missingScope("user:write:chat"))
	case c.user != nil && c.user.ID != in.SenderID:
		return refused(refuse(http.StatusUnauthorized, "The ID in sender_id must match the user ID in the request's access token."))
	}
	channel, sender := s.users[in.BroadcasterID], s.users[in.SenderID]
	if channel == nil {
		return refused(badRequest("The ID in broadcaster_id is not valid."))
	}
	if sender == nil {
		return refused(badRequest("The ID in sender_id is not valid."))
	}
	r := &channel.room
	if c.user == nil {
		if granted := s.grants[grantKey{c.token.ClientID, sender.ID}]; !granted["user:bot"] || !granted["user:write:chat"] {
			return refused(missingScope("user:bot"))
		}
		if !r.moderates(sender) && !s.grants[grantKey{c.token.ClientID, channel.ID}]["channel:bot"] {
			return refused(missingScope("channel:bot"))
		}
	}
	if in.ReplyParentMessageID != "" {
		if _, err := uuid.Parse(in.ReplyParentMessageID); err != nil {
			return refused(badRequest("The ID in reply_parent_message_id is not valid."))
		}
	}
	if utf8.RuneCountInString(in.Message) > maxText {
		return refused(refuse(http.StatusUnprocessableEntity, "The message is too large."))
	}
	p = post{room: r, from: sender, text: strings.TrimSpace(in.Message), via: ViaHelix}
	if p.text == "" {
		return refused(badRequest("The message field is required."))
	}
	if body, ok := strings.CutPrefix(p.text, "/me "); ok {
		p.text, p.action = body, true
	}
	if in.ReplyParentMessageID != "" {
		if r.byID[in.ReplyParentMessageID] == nil {
			return refused(badRequest("The ID in reply_parent_message_id is not valid."))
		}
		p.parent = in.ReplyParentMessageID
	}
	if b, ok := r.banned(sender, s.now()); ok && b.until.IsZero() {
		return refused(refuse(http.StatusForbidden, "The sender is not permitted to send chat messages to the broadcaster's chat room."))
	}
	return p, answer{}, true
}

// Whisper is a private message as received.
type Whisper struct {
	ID                   string
	From, To             string // logins
	FromUserID, ToUserID string
	Text                 string
	At                   time.Time
}

// Whispers returns the whispers received by a user, in order.
func (s *Server) Whispers(login string) []Whisper {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(login)
	if err != nil {
		return nil
	}
	return append([]Whisper(nil), a.whispers...)
}

// Whisper sends a whisper as a user, without limits. EventSub and the recipient's IRC connections get the whisper.
func (s *Server) Whisper(from, to, text string) (Whisper, error) {
	s.lock()
	defer s.unlock()
	a, err := s.account(from)
	if err != nil {
		return Whisper{}, err
	}
	b, err := s.account(to)
	if err != nil {
		return Whisper{}, err
	}
	return s.whisper(a, b, text), nil
}

func (s *Server) whisper(from, to *account, text string) Whisper {
	w := Whisper{
		ID: newID(), From: from.Login, To: to.Login,
		FromUserID: from.ID, ToUserID: to.ID, Text: text, At: s.now(),
	}
	to.whispers = append(to.whispers, w)
	m := message{tags: tags{
		"badges": "", "color": from.Color, "display-name": from.DisplayName, "emotes": "",
		"message-id": w.ID, "thread-id": from.ID + "_" + to.ID, "turbo": "0",
		"user-id": from.ID, "user-type": "",
	}, prefix: userPrefix(from.Login), command: "WHISPER", params: []string{to.Login, text}}
	for c := range s.clients {
		if c.account == to && c.commands {
			c.send(m)
		}
	}
	s.notifyWhisper(from, to, w)
	return w
}

// Largest lengths of whispers: to a stranger, and to a user who has whispered to the sender. Longer whispers are cut.
const (
	maxFirstWhisper = 500
	maxWhisper      = 10000
)

// sendWhisper implements https://dev.twitch.tv/docs/api/reference/#send-whisper
func (s *Server) sendWhisper(c *call) answer {
	if no, ok := c.userOnly("user:manage:whispers"); !ok {
		return no
	}
	var in struct {
		Message string `json:"message"`
	}
	from, to := c.query("from_user_id"), c.query("to_user_id")
	switch {
	case from == "":
		return missingParameter("from_user_id")
	case to == "":
		return missingParameter("to_user_id")
	case !digits(from):
		return badRequest("The ID in the from_user_id query parameter is not valid.")
	case !digits(to):
		return badRequest("The ID in the to_user_id query parameter is not valid.")
	case from != c.user.ID:
		return refuse(http.StatusUnauthorized, "The ID in from_user_id must match the user ID in the user access token.")
	case from == to:
		return badRequest("The ID in the from_user_id and to_user_id query parameters must be different.")
	case !c.decode(&in) || in.Message == "":
		return badRequest("The message field must not be empty.")
	case c.user.NoPhone:
		return refuse(http.StatusUnauthorized, "The user in from_user_id must have a verified phone number.")
	case c.user.NoWhispers:
		return refuse(http.StatusForbidden, "The account that's sending the message doesn't allow whisper messages.")
	}
	b := s.users[to]
	if b == nil {
		return refuse(http.StatusNotFound, "The ID in to_user_id was not found.")
	}
	known := false
	for _, w := range c.user.whispers {
		known = known || w.FromUserID == to
	}
	if b.NoWhispers && !known {
		return badRequest("The user that you're sending the whisper to doesn't allow whisper messages.")
	}
	now, limits := s.now(), s.options.limits
	tooMany := refuse(http.StatusTooManyRequests, "The sending user exceeded the number of whisper requests that they may make.")
	if c.user.lastSecond.Full(now, limits.WhispersPerSecond) || c.user.lastMinute.Full(now, limits.WhispersPerMinute) {
		return tooMany
	}
	if h := c.user.recipients[to]; !h.Full(now, Window{N: 1, Per: limits.WhisperRecipients.Per}) && limits.WhisperRecipients.N > 0 {
		today := 0
		for _, h := range c.user.recipients {
			if h.Full(now, Window{N: 1, Per: limits.WhisperRecipients.Per}) {
				today++
			}
		}
		if today >= limits.WhisperRecipients.N {
			return tooMany
		}
		c.user.recipients[to] = fake.History{now}
	}
	c.user.lastSecond.Take(now, limits.WhispersPerSecond)
	c.user.lastMinute.Take(now, limits.WhispersPerMinute)
	most := maxFirstWhisper
	if known {
		most = maxWhisper
	}
	text := in.Message
	if utf8.RuneCountInString(text) > most {
		text = string([]rune(text)[:most])
	}
	s.whisper(c.user, b, text)
	return answer{status: http.StatusNoContent}
}

func digits(id string) bool { return strings.Trim(id, "0123456789") == "" }
