package twitch

import (
	"context"
	"time"

	"github.com/go-json-experiment/json"

	"parley.internal/gateway/twitch/eventsub"
	"parley.internal/shared/chattext"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// whisperTopic is the topic of the whispers to the bot. The subscription does not count among the ten that Twitch permits
// the bot, because the bot itself has granted the scope.
var whisperTopic = eventsub.Topic{Kind: eventsub.Whisper}

// recordTime bounds recording the writer of a whisper.
const recordTime = 2 * time.Second

// whisperEvent converts a whisper to the bot (https://dev.twitch.tv/docs/chat/whispers/#receiving-whispers) into a message
// without a channel; its answer is a whisper. Twitch's id of the whisper is the same in every notification. whisperEvent
// returns nil for the bot's own whispers, for whispers without a visible text, and for malformed content.
func whisperEvent(n eventsub.Notification, bot account) *event.Event {
	var content struct {
		ID        string `json:"whisper_id"`
		FromID    string `json:"from_user_id"`
		FromLogin string `json:"from_user_login"`
		FromName  string `json:"from_user_name"`
		Whisper   struct {
			Text string `json:"text"`
		} `json:"whisper"`
	}
	if json.Unmarshal(n.Event, &content) != nil {
		return nil
	}
	user, err := identity.New(identity.Twitch, content.FromID)
	if err != nil || user == bot.id || content.ID == "" || chattext.Trim(content.Whisper.Text) == "" {
		return nil
	}
	e := newEvent(event.TypeChatMessage, content.ID, "")
	e.UserID = user.String()
	e.Message = &event.Message{
		ID: content.ID, Role: event.RoleUser, Text: content.Whisper.Text, MentionsBot: bot.mentionedIn(content.Whisper.Text),
		RawPlatformPayload: encode(rawWhisper{
			UserID: content.FromID, Username: content.FromLogin, DisplayName: content.FromName, ID: content.ID, SentAt: n.At.UTC(), IsWhisper: true,
		}),
	}
	return e
}

// rawWhisper is the raw payload of a whisper, with the field names of rawMessage. It has no roles: roles belong to a
// channel, so a whisper does not change the stored roles of the user.
type rawWhisper struct {
	UserID      string    `json:"userId"`
	Username    string    `json:"username,omitzero"`
	DisplayName string    `json:"displayName,omitzero"`
	ID          string    `json:"messageId"`
	SentAt      time.Time `json:"sentAt"`
	IsWhisper   bool      `json:"isWhisper"`
}

// recordWriter stores that a user whispered to the bot, before an answer is possible. Without the record, the answer is cut
// to Twitch's length for a first whisper. So a failure does not stop the event.
func (in *ingestQueue) recordWriter(ctx context.Context, e *event.Event) {
	s := in.service
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	user, err := identity.Parse(e.UserID)
	if err == nil {
		err = s.book.Wrote(ctx, user)
	}
	if err != nil {
		s.log.WarnContext(ctx, "recording a whisper failed: its answer may be cut", "error", err, "correlationId", e.CorrelationID)
	}
}
