package eventsub

import (
	"bytes"
	"fmt"
	"maps"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/event"
)

// The types of messages (https://dev.twitch.tv/docs/eventsub/websocket-reference/).
const (
	typeWelcome      = "session_welcome"
	typeKeepalive    = "session_keepalive"
	typeNotification = "notification"
	typeReconnect    = "session_reconnect"
	typeRevocation   = "revocation"
)

// maxMessage is the maximum length of a message in bytes. Twitch documents no limit; real messages are below 10 kB.
const maxMessage = 256 << 10

// message is a message from Twitch.
type message struct {
	Metadata struct {
		ID   string    `json:"message_id"`
		Type string    `json:"message_type"`
		At   time.Time `json:"message_timestamp"`
	} `json:"metadata"`
	Payload struct {
		Session struct {
			ID           string `json:"id"`
			Keepalive    int    `json:"keepalive_timeout_seconds"` // null in reconnect messages
			ReconnectURL string `json:"reconnect_url"`             // null except in reconnect messages
		} `json:"session"`
		Subscription struct {
			ID        string         `json:"id"`
			Type      string         `json:"type"`
			Status    string         `json:"status"`
			Condition jsontext.Value `json:"condition"`
		} `json:"subscription"`
		Event jsontext.Value `json:"event"`
	} `json:"payload"`
}

// parse decodes a message. Half a character in a text becomes U+FFFD, and invalid UTF-8 does, too. It returns an error
// for a message without the documented fields.
func parse(data []byte) (message, error) {
	var m message
	data = event.ReplaceHalfCharacters(bytes.ToValidUTF8(data, []byte("\ufffd")))
	if err := json.Unmarshal(data, &m); err != nil {
		return message{}, fmt.Errorf("not a message of EventSub: %w", err)
	}
	switch {
	case m.Metadata.Type == "":
		return message{}, fmt.Errorf("not a message of EventSub: no metadata.message_type")
	case m.Metadata.Type == typeNotification && (m.Metadata.ID == "" || m.Metadata.At.IsZero() || m.Payload.Event.Kind() != '{'):
		return message{}, fmt.Errorf("a notification without message_id, message_timestamp or event")
	case m.Metadata.Type == typeWelcome && m.Payload.Session.ID == "":
		return message{}, fmt.Errorf("a welcome without a session")
	}
	return m, nil
}

// condition returns the subscription's condition. Twitch adds omitted parts as empty values; condition removes them.
func (m message) condition() map[string]string {
	var c map[string]string
	if json.Unmarshal(m.Payload.Subscription.Condition, &c) != nil {
		return nil
	}
	maps.DeleteFunc(c, func(_, v string) bool { return v == "" })
	return c
}
