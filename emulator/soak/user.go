package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/gorilla/websocket"

	"parley.internal/shared/retry"
)

// receipt records one answer received by a client.
type receipt struct {
	delivery, question string
	at                 time.Time
	gateway            int // index of the slot
	connection         int // number of the connection, from 1
}

// visit is a connection that became ready. The client named the answers received before: transcript[:named], at most the
// last maxAfter.
type visit struct {
	connection   int    // number of the connection
	instance     string // gateway instance
	named        int
	ready, ended time.Time // ended is zero while the connection is open
}

// maxAfter is how many of its last answers a client names when it reconnects.
const maxAfter = 50

// user is a person with one client. The client follows the protocol: every question has an id, an unanswered question is
// sent again after a lost connection, and a reconnecting client names its last answers. A user belongs to one goroutine at
// a time.
type user struct {
	id, token string
	acks      bool // acknowledges every answer, and not only the first
	leaves    bool // asks and disconnects before the answers arrive
	soak      *clientSoak

	asked       int
	open        []string             // unanswered questions in the order of asking
	since       map[string]time.Time // first sending of each open question
	longest     time.Duration        // longest time from a question to its answer
	transcript  []receipt
	visits      []*visit
	connections int
	latest      int // number of the latest answered question
	overtaken   int // answers to a question older than the latest answered question
	refused     int // chat.error frames
}

// frame holds the parts of a protocol frame that a client needs.
type frame struct {
	Type    string `json:"type"`
	Payload struct {
		Text     string   `json:"text,omitempty"`
		Code     string   `json:"code,omitempty"`
		ID       string   `json:"id,omitempty"`
		IDs      []string `json:"ids,omitempty"`
		Missed   int      `json:"missed,omitempty"`
		Instance string   `json:"instance,omitempty"`
	} `json:"payload"`
	Metadata struct {
		ID      string `json:"id,omitempty"`
		ReplyTo string `json:"replyTo,omitempty"`
	} `json:"metadata"`
}

// session is a connection of a user's client.
type session struct {
	*websocket.Conn
	gateway int    // index of the slot
	acks    bool   // the client acknowledges every answer
	visit   *visit // nil until the connection is ready
	release func() bool
}

// writeTime bounds the sending of a frame.
const writeTime = 5 * time.Second

// connect dials until a connection is ready and the missed answers are read. A client without any answer cannot name the
// place to resume at, so it acknowledges its first answer.
func (u *user) connect(ctx context.Context) (*session, error) {
	query, named := url.Values{}, len(u.transcript)
	for _, r := range u.transcript[max(0, len(u.transcript)-maxAfter):] {
		query.Add("after", r.delivery)
	}
	acks := u.acks || named == 0
	if acks {
		query.Set("ack", "1")
	}
	dialer := websocket.Dialer{HandshakeTimeout: 5 * time.Second}
	for {
		slot := rand.IntN(len(u.soak.gateways))
		conn, _, err := dialer.DialContext(ctx, "ws://"+u.soak.gateways[slot].current().clients.addr+"/ws/v1?"+query.Encode(), http.Header{"Authorization": {"Bearer " + u.token}})
		if err == nil {
			u.connections++
			s := &session{Conn: conn, gateway: slot, acks: acks, release: context.AfterFunc(ctx, func() { conn.Close() })}
			if err = u.catchUp(s, named); err == nil {
				return s, nil
			}
			s.end()
			return u.connect(ctx) // the answers received before the connection broke belong into the next query
		}
		if err := retry.Sleep(ctx, 50*time.Millisecond+rand.N(200*time.Millisecond)); err != nil {
			return nil, fmt.Errorf("connect %s: %w", u.id, err)
		}
	}
}

// end closes the connection without a close frame.
func (s *session) end() {
	s.release()
	s.Close()
	if s.visit != nil {
		s.visit.ended = time.Now()
	}
}

// catchUp reads the ready frame and the missed answers. named is the number of answers known when the client connected.
func (u *user) catchUp(s *session, named int) error {
	first, err := u.read(s)
	if err != nil {
		return err
	}
	if first.Type != "connection.ready" {
		return fmt.Errorf("the first frame is a %s", first.Type)
	}
	s.visit = &visit{connection: u.connections, instance: first.Payload.Instance, named: named, ready: time.Now()}
	u.visits = append(u.visits, s.visit)
	for range first.Payload.Missed {
		if _, err := u.read(s); err != nil {
			return err
		}
	}
	return nil
}

// read reads the next frame. It records an answer, and sends a refused question again.
func (u *user) read(s *session) (frame, error) {
	if err := s.SetReadDeadline(time.Now().Add(u.soak.pace.Patience)); err != nil {
		return frame{}, err
	}
	var f frame
	if err := s.ReadJSON(&f); err != nil {
		return frame{}, err
	}
	switch f.Type {
	case "chat.message.received":
		u.receive(receipt{delivery: f.Metadata.ID, question: f.Metadata.ReplyTo, at: time.Now(), gateway: s.gateway, connection: u.connections})
		if s.acks {
			var ack frame
			ack.Type, ack.Payload.IDs = "connection.ack", []string{f.Metadata.ID}
			return f, u.write(s, ack)
		}
	case "chat.error":
		u.refused++
		return f, u.send(s, f.Payload.ID)
	}
	return f, nil
}

// receive records an answer and closes its question. An answer to an unknown question stays in the transcript for the
// audit.
func (u *user) receive(r receipt) {
	u.transcript = append(u.transcript, r)
	if i := slices.Index(u.open, r.question); i >= 0 {
		u.open = slices.Delete(u.open, i, i+1)
		u.longest = max(u.longest, time.Since(u.since[r.question]))
		delete(u.since, r.question)
		u.soak.answered.Add(1)
	}
	var n int
	if _, err := fmt.Sscanf(r.question, "q%d", &n); err != nil {
		return
	}
	if n < u.latest {
		u.overtaken++
	}
	u.latest = max(u.latest, n)
}

// write sends a frame.
func (u *user) write(s *session, f frame) error {
	if err := s.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	return s.WriteJSON(f)
}

// send sends a question, for the first time or again.
func (u *user) send(s *session, question string) error {
	var f frame
	f.Type, f.Payload.Text, f.Metadata.ID = "chat.message.send", "!ask "+question, question
	return u.write(s, f)
}

// questionName returns the metadata.id of a user's n-th question, counted from 1.
func questionName(n int) string { return fmt.Sprintf("q%d", n) }

// ask sends the next question.
func (u *user) ask(s *session) error {
	u.asked++
	question := questionName(u.asked)
	u.open = append(u.open, question)
	u.since[question] = time.Now()
	u.soak.asked.Add(1)
	return u.send(s, question)
}

// warmUp asks one question and waits for the answer. Then the client has an answer to name when it reconnects.
func (u *user) warmUp(ctx context.Context) error {
	return u.chat(ctx, func() bool { return u.asked < 1 })
}

// chat asks while more returns true. It returns when every question is answered or dead.
func (u *user) chat(ctx context.Context, more func() bool) error {
	for {
		s, err := u.connect(ctx)
		if err != nil {
			return err
		}
		done, err := u.converse(s, more)
		s.end()
		if done {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s waits for %d answers: %w", u.id, len(u.open), errors.Join(ctx.Err(), err))
		}
	}
}

// converse uses one connection until all questions are closed, the connection breaks, or no frame comes for too long.
func (u *user) converse(s *session, more func() bool) (done bool, err error) {
	for _, question := range slices.Clone(u.open) {
		if err := u.send(s, question); err != nil {
			return false, err
		}
	}
	for {
		for len(u.open) < u.soak.options.InFlight && more() {
			if err := u.ask(s); err != nil {
				return false, err
			}
		}
		u.open = u.soak.withoutDead(u.id, u.open)
		if len(u.open) == 0 {
			return true, nil
		}
		if _, err := u.read(s); err != nil {
			return false, err
		}
	}
}

// askAndLeave asks some questions and disconnects without reading an answer. It stays away until every answer is
// delivered or dead, and then reconnects for the delivered answers.
func (u *user) askAndLeave(ctx context.Context) error {
	s, err := u.connect(ctx)
	if err != nil {
		return err
	}
	for range u.soak.options.InFlight {
		if err := u.ask(s); err != nil {
			break // unsent questions need no answer
		}
	}
	err = u.soak.awaitAccepted(ctx, u.id, questionName(u.asked), time.Second)
	s.end()
	u.open = nil
	if err != nil {
		return err
	}
	return u.reconnect(ctx, u.soak.pace.Deadline+u.soak.pace.Grace+3*u.soak.pace.Sweep)
}

// reconnect connects after a pause, reads the missed answers, and disconnects.
func (u *user) reconnect(ctx context.Context, after time.Duration) error {
	if err := retry.Sleep(ctx, after); err != nil {
		return fmt.Errorf("%s is disconnected: %w", u.id, err)
	}
	s, err := u.connect(ctx)
	if err != nil {
		return err
	}
	s.end()
	return nil
}
