package load

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// gateway starts a server that answers every question answers times, and returns its URL.
func gateway(t *testing.T, answers int) string {
	t.Helper()
	up := websocket.Upgrader{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			var f frame
			if conn.ReadJSON(&f) != nil {
				return
			}
			f.Type, f.Metadata.ReplyTo, f.Metadata.ID = "chat.message.received", f.Metadata.ID, "d-"+f.Metadata.ID
			for range answers {
				if conn.WriteJSON(f) != nil {
					return
				}
			}
		}
	}))
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http")
}

func TestRunCountsEveryAnswer(t *testing.T) {
	tokens := map[string]string{"a": "1", "b": "2", "c": "3"}
	for name, tt := range map[string]struct{ answers, inFlight, doubled int }{
		"once":              {1, 1, 0},
		"several in flight": {1, 4, 0},
	} {
		r, err := Run(t.Context(), Options{URLs: []string{gateway(t, tt.answers)}, Tokens: tokens, Messages: 20, InFlight: tt.inFlight, Patience: 10 * time.Second})
		if err != nil || r.Sent != 20 || r.Answered != 20 || r.Lost != 0 || r.Doubled != tt.doubled || len(r.Latencies) != 20 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	// A user reads a repeated answer only while waiting for the next answer, so the last repeat may stay unread.
	r, err := Run(t.Context(), Options{URLs: []string{gateway(t, 2)}, Tokens: map[string]string{"a": "1"}, Messages: 5, InFlight: 1, Patience: 10 * time.Second})
	if err != nil || r.Answered != 5 || r.Doubled < 4 {
		t.Errorf("answered twice: %+v, %v", r, err)
	}
}

func TestUnansweredQuestionsAreLost(t *testing.T) {
	r, err := Run(t.Context(), Options{URLs: []string{gateway(t, 0)}, Tokens: map[string]string{"a": "1"}, Messages: 3, InFlight: 1, Patience: 10 * time.Millisecond})
	if err == nil || r.Lost != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestPercentile(t *testing.T) {
	var r Result
	if r.Percentile(50) != 0 {
		t.Error("the percentile without answers is not 0")
	}
	for i := range 100 {
		r.Latencies = append(r.Latencies, time.Duration(i+1))
	}
	for p, want := range map[float64]time.Duration{0: 1, 50: 50, 99: 99, 100: 100} {
		if got := r.Percentile(p); got != want {
			t.Errorf("p%v = %d; want %d", p, got, want)
		}
	}
}
