package twitch

import (
	"context"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"parley.internal/gateway/twitch/eventsub"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// whisperTopic are those to the bot. They cost nothing of the ten subscriptions that it may have, since it has allowed them
// itself.
var whisperTopic = eventsub.Topic{Kind: eventsub.Whisper}

// recordTime bounds how long a whisper waits until it is noted who wrote it.
const recordTime = 2 * time.Second

// whisperEvent makes an event of a whisper to the bot (https://dev.twitch.tv/docs/chat/whispers/#receiving-whispers). It is
// somebody's message, in no channel, and is answered by a whisper. Its id is Twitch's of the whisper, which stays the
// same however often it is told. It is nil for what is no message: what the bot itself whispers, what has no text, and
// what is not as Twitch describes it.
func whisperEvent(n eventsub.Notification, bot identity.UserID) *event.Event {
	var told struct {
		ID        string `json:"whisper_id"`
		FromID    string `json:"from_user_id"`
		FromLogin string `json:"from_user_login"`
		FromName  string `json:"from_user_name"`
		Whisper   struct {
			Text string `json:"text"`
		} `json:"whisper"`
	}
	if json.Unmarshal(n.Event, &told) != nil {
		return nil
	}
	user, err := identity.New(identity.Twitch, told.FromID)
	if err != nil || user == bot || told.ID == "" || strings.TrimSpace(told.Whisper.Text) == "" {
		return nil
	}
	e := newEvent(event.TypeChatMessage, told.ID, "")
	e.UserID = user.String()
	e.Message = &event.Message{
		ID: told.ID, Role: event.RoleUser, Text: told.Whisper.Text,
		RawPlatformPayload: encode(rawWhisper{
			UserID: told.FromID, Username: told.FromLogin, DisplayName: told.FromName, ID: told.ID, SentAt: n.At.UTC(), IsWhisper: true,
		}),
	}
	return e
}

// rawWhisper is the raw payload of a whisper, with the names that one of the chat has. It tells nothing of roles, which
// belong to a channel: somebody who whispers keeps those that they have.
type rawWhisper struct {
	UserID      string    `json:"userId"`
	Username    string    `json:"username,omitzero"`
	DisplayName string    `json:"displayName,omitzero"`
	ID          string    `json:"messageId"`
	SentAt      time.Time `json:"sentAt"`
	IsWhisper   bool      `json:"isWhisper"`
}

// recordWriter keeps on record that somebody whispered to the bot, before anybody can answer. Where that fails, a long answer is
// cut to what Twitch lets one whisper to a stranger: that is no reason to have nobody hear the whisper.
func (in *ingestQueue) recordWriter(ctx context.Context, e *event.Event) {
	s := in.service
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	user, err := identity.Parse(e.UserID)
	if err == nil {
		err = s.book.Wrote(ctx, user)
	}
	if err != nil {
		s.log.WarnContext(ctx, "an answer to a whisper may be cut short", "error", err, "correlationId", e.CorrelationID)
	}
}
