package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/gorilla/websocket"
)

// receipt is one answer that a user's client was given, as it came.
type receipt struct {
	delivery, question string
	at                 time.Time
	gateway            int
	connection         int // counted from 1
}

// maxAfter is how many of the answers it got last a client names when it comes back.
const maxAfter = 50

// user is one person with one client. It does what the protocol asks of clients: it gives every question an id, sends
// it again after a lost connection while it has no answer, and names the last answers that it got when it comes back.
type user struct {
	id, token string
	acks      bool // says itself what it got
	leaves    bool // asks, and goes away before the answers come
	world     *world

	asked       int
	open        []string             // questions without an answer, in the order of asking
	since       map[string]time.Time // when each of them was asked first
	longest     time.Duration        // from a question to its answer
	transcript  []receipt
	connections int
	latest      int // number of the last question that was answered
	overtaken   int // answers to questions that were asked before one that was answered already
	refused     int // chat.error frames
}

// frame is as much of the protocol's frames as a client needs.
type frame struct {
	Type    string `json:"type"`
	Payload struct {
		Text   string   `json:"text,omitempty"`
		Code   string   `json:"code,omitempty"`
		ID     string   `json:"id,omitempty"`
		IDs    []string `json:"ids,omitempty"`
		Missed int      `json:"missed,omitempty"`
	} `json:"payload"`
	Metadata struct {
		ID      string `json:"id,omitempty"`
		ReplyTo string `json:"replyTo,omitempty"`
	} `json:"metadata"`
}

// session is one connection of a user's client.
type session struct {
	*websocket.Conn
	gateway int
	release func() bool
}

// writeTime bounds the sending of a frame.
const writeTime = 5 * time.Second

// connect comes back until there is a connection, and takes what was missed.
func (u *user) connect(ctx context.Context) (*session, error) {
	query := url.Values{}
	for _, r := range u.transcript[max(0, len(u.transcript)-maxAfter):] {
		query.Add("after", r.delivery)
	}
	if u.acks {
		query.Set("ack", "1")
	}
	dialer := websocket.Dialer{HandshakeTimeout: 5 * time.Second}
	for {
		slot := rand.IntN(len(u.world.gateways))
		conn, _, err := dialer.DialContext(ctx, "ws://"+u.world.gateways[slot].get().clients.addr+"/ws/v1?"+query.Encode(), http.Header{"Authorization": {"Bearer " + u.token}})
		if err == nil {
			u.connections++
			s := &session{Conn: conn, gateway: slot, release: context.AfterFunc(ctx, func() { conn.Close() })}
			if err = u.catchUp(s); err == nil {
				return s, nil
			}
			s.end()
			// what came before it broke is to be named when it comes back
			return u.connect(ctx)
		}
		if err := wait(ctx, 50*time.Millisecond+rand.N(200*time.Millisecond)); err != nil {
			return nil, fmt.Errorf("connect %s: %w", u.id, ctx.Err())
		}
	}
}

// end leaves without a word.
func (s *session) end() {
	s.release()
	s.Close()
}

// catchUp reads the first frame and those that were missed.
func (u *user) catchUp(s *session) error {
	first, err := u.read(s)
	if err != nil {
		return err
	}
	if first.Type != "connection.ready" {
		return fmt.Errorf("the first frame is a %s", first.Type)
	}
	for range first.Payload.Missed {
		if _, err := u.read(s); err != nil {
			return err
		}
	}
	return nil
}

// read takes the next frame, and notes it if it is an answer.
func (u *user) read(s *session) (frame, error) {
	if err := s.SetReadDeadline(time.Now().Add(u.world.Pace.Patience)); err != nil {
		return frame{}, err
	}
	var f frame
	if err := s.ReadJSON(&f); err != nil {
		return frame{}, err
	}
	switch f.Type {
	case "chat.message.received":
		u.transcript = append(u.transcript, receipt{
			delivery: f.Metadata.ID, question: f.Metadata.ReplyTo, at: time.Now(), gateway: s.gateway, connection: u.connections,
		})
		u.answered(f.Metadata.ReplyTo)
		if u.acks {
			var ack frame
			ack.Type, ack.Payload.IDs = "connection.ack", []string{f.Metadata.ID}
			return f, u.write(s, ack)
		}
	case "chat.error":
		u.refused++
		return f, u.say(s, f.Payload.ID)
	}
	return f, nil
}

func (u *user) answered(question string) {
	if i := slices.Index(u.open, question); i >= 0 {
		u.open = slices.Delete(u.open, i, i+1)
		u.longest = max(u.longest, time.Since(u.since[question]))
		delete(u.since, question)
		u.world.answered.Add(1)
	}
	var n int
	if _, err := fmt.Sscanf(question, "q%d", &n); err != nil {
		return // an answer to nothing that was asked: the audit finds it
	}
	if n < u.latest {
		u.overtaken++
	}
	u.latest = max(u.latest, n)
}

func (u *user) write(s *session, f frame) error {
	if err := s.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	return s.WriteJSON(f)
}

// say sends a question, the first time or again.
func (u *user) say(s *session, question string) error {
	var f frame
	f.Type, f.Payload.Text, f.Metadata.ID = "chat.message.send", "!ask "+question, question
	return u.write(s, f)
}

// questionName is the metadata.id of a user's n-th question, counted from 1.
func questionName(n int) string { return fmt.Sprintf("q%d", n) }

// ask sends the next question.
func (u *user) ask(s *session) error {
	u.asked++
	question := questionName(u.asked)
	u.open = append(u.open, question)
	u.since[question] = time.Now()
	u.world.asked.Add(1)
	return u.say(s, question)
}

// warm asks one question and waits for its answer, so that the client has something to name when it comes back:
// without, an answer that was written into a breaking connection would be out of its reach.
func (u *user) warm(ctx context.Context) error {
	return u.chat(ctx, func() bool { return u.asked < 1 })
}

// chat asks while more says so, and returns when every question has its answer or is known to be dead.
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

// converse uses one connection until all is done, or it breaks, or nothing came for too long.
func (u *user) converse(s *session, more func() bool) (done bool, err error) {
	for _, question := range slices.Clone(u.open) {
		if err := u.say(s, question); err != nil {
			return false, err
		}
	}
	for {
		for len(u.open) < u.world.InFlight && more() {
			if err := u.ask(s); err != nil {
				return false, err
			}
		}
		u.open = u.world.alive(u.id, u.open)
		if len(u.open) == 0 {
			return true, nil
		}
		if _, err := u.read(s); err != nil {
			return false, err
		}
	}
}

// leave asks some questions and goes away without reading a word, then stays away until they are delivered or dead,
// and comes back for what was delivered.
func (u *user) leave(ctx context.Context) error {
	s, err := u.connect(ctx)
	if err != nil {
		return err
	}
	for range u.world.InFlight {
		if err := u.ask(s); err != nil {
			break // some were not sent: they need no answer
		}
	}
	err = u.world.accepted(ctx, u.id, questionName(u.asked), time.Second)
	s.end()
	u.open = nil
	if err != nil {
		return err
	}
	return u.visit(ctx, u.world.Pace.Deadline+u.world.Pace.Grace+3*u.world.Pace.Sweep)
}

// visit connects after a while, and takes what was missed.
func (u *user) visit(ctx context.Context, after time.Duration) error {
	if err := wait(ctx, after); err != nil {
		return fmt.Errorf("%s is away: %w", u.id, ctx.Err())
	}
	s, err := u.connect(ctx)
	if err != nil {
		return err
	}
	s.end()
	return nil
}

// decodeQuestion finds who asked what in an event on the ingress topic.
func decodeQuestion(data []byte) (questionID, error) {
	var e struct {
		UserID   string `json:"userId"`
		Metadata struct {
			ID string `json:"id"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return questionID{}, fmt.Errorf("read a question: %w", err)
	}
	return questionID{e.UserID, e.Metadata.ID}, nil
}
