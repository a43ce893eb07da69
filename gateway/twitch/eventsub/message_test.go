package eventsub

import (
	"maps"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, test := range []struct{ name, in, wrong string }{
		{"a keepalive", `{"metadata":{"message_id":"1","message_type":"session_keepalive","message_timestamp":"2023-07-19T10:11:12.634234626Z"},"payload":{}}`, ""},
		{"a reconnect message", `{"metadata":{"message_type":"session_reconnect"},"payload":{"session":{"id":"s","keepalive_timeout_seconds":null,"reconnect_url":"wss://x"}}}`, ""},
		{"what is new", `{"metadata":{"message_type":"session_party"}}`, ""},
		{"a notification", `{"metadata":{"message_id":"1","message_type":"notification","message_timestamp":"2023-07-19T10:11:12.634234626Z"},"payload":{"event":{}}}`, ""},
		{"one without an id", `{"metadata":{"message_type":"notification","message_timestamp":"2023-07-19T10:11:12Z"},"payload":{"event":{}}}`, "message_id"},
		{"one without a time", `{"metadata":{"message_id":"1","message_type":"notification"},"payload":{"event":{}}}`, "message_timestamp"},
		{"one without an event", `{"metadata":{"message_id":"1","message_type":"notification","message_timestamp":"2023-07-19T10:11:12Z"}}`, "event"},
		{"a bad time", `{"metadata":{"message_id":"1","message_type":"notification","message_timestamp":"now"},"payload":{"event":{}}}`, "message_timestamp"},
		{"no type", `{"metadata":{}}`, "message_type"},
		{"a welcome to nothing", `{"metadata":{"message_type":"session_welcome"}}`, "session"},
		{"no JSON", `hello`, "not a message"},
	} {
		_, err := parse([]byte(test.in))
		if test.wrong == "" && err != nil || test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestEmptyConditionsAreRemoved(t *testing.T) {
	m, err := parse([]byte(`{"metadata":{"message_type":"revocation"},"payload":{"subscription":{"condition":{"from_broadcaster_user_id":"","to_broadcaster_user_id":"5"}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.condition(); !maps.Equal(got, Raid.condition("5", "9")) {
		t.Errorf("condition = %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"metadata":{"message_id":"1","message_type":"notification","message_timestamp":"2023-07-19T10:11:12Z"},"payload":{"subscription":{"condition":{"a":"b"}},"event":{}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parse(data)
		if err == nil && m.Metadata.Type == "" {
			t.Error("a message without a type")
		}
		m.condition()
	})
}

// Strict JSON has no half characters. A whisper with one must be heard all the same.
func TestHalfCharactersInAMessageAreReplaced(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{`hi \ud83d`, `hi \ufffd`}, {`\ude00 hi`, `\ufffd hi`}, {`\ud83d\ude00`, `\ud83d\ude00`}, {"hi \xff", "hi \ufffd"}, {"\xed\xa0\xbd", "\ufffd"},
	} {
		m, err := parse([]byte(`{"metadata":{"message_id":"n1","message_type":"notification","message_timestamp":"2026-01-01T00:00:00Z"},
			"payload":{"subscription":{"id":"s","type":"user.whisper.message","condition":{"user_id":"1"}},"event":{"whisper":{"text":"` + tt.text + `"}}}}`))
		if want := `{"whisper":{"text":"` + tt.want + `"}}`; err != nil || string(m.Payload.Event) != want {
			t.Errorf("%+q: %s, %v; want %s", tt.text, m.Payload.Event, err, want)
		}
	}
}
