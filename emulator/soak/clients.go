package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"golang.org/x/sync/errgroup"

	"parley.internal/emulator/stack"
	"parley.internal/shared/delivery"
	"parley.internal/shared/retry"
	"parley.internal/shared/topology"
)

// Long is the pace of a soak of some minutes.
var Long = Pace{
	Gap: 2500 * time.Millisecond, Longest: 4 * time.Second, Skew: 10 * time.Second, Deadline: 20 * time.Second,
	Grace: 40 * time.Second, Sweep: 5 * time.Second, Patience: 25 * time.Second,
}

// Short is the pace of a soak in a test.
var Short = Pace{
	Gap: 400 * time.Millisecond, Longest: time.Second, Skew: time.Second, Deadline: 3 * time.Second,
	Grace: 6 * time.Second, Sweep: 500 * time.Millisecond, Patience: 3 * time.Second,
}

// Rolling is the pace of a rolling deploy without other faults. Its deadline is long: no answer can become overdue.
var Rolling = Pace{
	Gap: 500 * time.Millisecond, Longest: time.Second, Deadline: time.Minute, Grace: 2 * time.Second, Sweep: time.Second,
	Patience: 25 * time.Second,
}

// ClientOptions configures [RunClients]. The users ask until For, Messages and Faults are all reached.
type ClientOptions struct {
	Common
	Pace     Pace
	Users    int    // every tenth user disconnects before the answers arrive
	InFlight int    // open questions per user
	Kinds    []Kind // of the faults; nil for all of [Kinds]
	For      time.Duration
	Messages int // questions
}

// check returns an error for options that cannot work.
func (o ClientOptions) check() error {
	if o.Gateways < 1 || o.Users < 1 || o.InFlight < 1 {
		return errors.New("soak: needs at least one gateway, one user and one question in flight")
	}
	if o.Pace.Grace <= o.Pace.Skew+o.Pace.Longest {
		return errors.New("soak: the sweep's grace must exceed the clock skew plus the longest fault")
	}
	return nil
}

// questionID identifies a question by its user and its metadata.id.
type questionID struct{ user, id string }

// clientSoak is a soak with WebSocket users.
type clientSoak struct {
	*harness
	options ClientOptions
	users   []*user
	rolls   atomic.Uint64 // rolls begun

	mu         sync.Mutex // guards the fields below
	accepted   map[questionID]string
	arrived    chan struct{} // closed and replaced when accepted grows
	dead       map[questionID]bool
	egress     int // messages accepted by the egress topic
	required   int // injected faults among the first Faults of the schedule
	departures Departures
}

// RunClients runs a soak with WebSocket users and audits it. It returns an error if the soak could not run; the report
// holds the findings of the audit.
func RunClients(ctx context.Context, o ClientOptions) (_ *ClientReport, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Kinds == nil {
		o.Kinds = names(Kinds)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &clientSoak{
		harness: newHarness(o.Common, o.Pace, o.Kinds), options: o,
		accepted: map[questionID]string{}, arrived: make(chan struct{}), dead: map[questionID]bool{},
	}
	defer func() {
		cancel()
		err = errors.Join(err, s.close())
	}()
	return execute(ctx, s.start, s.run, s.audit)
}

// start starts the servers, writes the users, and starts the functions and gateways.
func (s *clientSoak) start(ctx context.Context) error {
	s.setPhase("starting")
	if err := s.startServers(ctx, s.recordPublish); err != nil {
		return err
	}
	seed := stack.Seed{Users: map[string]map[string]any{}, Personalities: s.Documents.Personalities, Rules: s.Documents.Rules}
	for i := range s.options.Users {
		seed.Users[fmt.Sprintf("api-gateway:soak%d", i)] = map[string]any{"displayName": fmt.Sprintf("Soak %d", i)}
	}
	tokens, err := seed.Write(ctx, s.client, time.Now())
	if err != nil {
		return err
	}
	for i, id := range slices.Sorted(maps.Keys(tokens)) {
		s.users = append(s.users, &user{id: id, token: tokens[id], acks: i%2 == 1, leaves: i%10 == 9, soak: s, since: map[string]time.Time{}})
	}
	return s.startParts(ctx, nil)
}

// recordPublish records every question accepted by the ingress topic, and counts the messages of the egress topic.
func (s *clientSoak) recordPublish(topic string, m *pubsubpb.PubsubMessage) {
	switch topic {
	case topology.Prefix{}.Topic(project, topology.Egress).String():
		s.mu.Lock()
		defer s.mu.Unlock()
		s.egress++
	case topology.Prefix{}.Topic(project, topology.Ingress).String():
		q, err := decodeQuestion(m.Data)
		if err != nil {
			s.fail("the ingress topic accepted a message other than a question: %v", err)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if old, ok := s.accepted[q]; ok && old != m.Attributes["correlationId"] {
			s.fail("question %s of %s has two correlation ids", q.id, q.user)
		}
		s.accepted[q] = m.Attributes["correlationId"]
		close(s.arrived)
		s.arrived = make(chan struct{})
	}
}

// decodeQuestion reads the user and the id of a question from an event of the ingress topic.
func decodeQuestion(data []byte) (questionID, error) {
	var e struct {
		UserID   string `json:"userId"`
		Metadata struct {
			ID string `json:"id"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return questionID{}, fmt.Errorf("decode a question: %w", err)
	}
	return questionID{e.UserID, e.Metadata.ID}, nil
}

// awaitAccepted waits until the ingress topic accepted a question, at most for limit. After limit it returns nil.
func (s *clientSoak) awaitAccepted(ctx context.Context, user, question string, limit time.Duration) error {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		_, ok := s.accepted[questionID{user, question}]
		arrived := s.arrived
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-arrived:
		case <-timeout.C:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("wait for the ingress topic to accept a question: %w", ctx.Err())
		}
	}
}

// withoutDead removes dead-lettered questions from a list: no answer will come.
func (s *clientSoak) withoutDead(user string, questions []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.dead) == 0 {
		return questions
	}
	return slices.DeleteFunc(questions, func(q string) bool { return s.dead[questionID{user, q}] })
}

// run executes the phases of the soak. In each phase every user acts, and the phase ends when all users are done.
func (s *clientSoak) run(ctx context.Context) error {
	background, endBackground := context.WithCancel(ctx)
	var g errgroup.Group
	defer func() {
		endBackground()
		g.Wait()
	}()
	g.Go(func() error { s.publishSweeps(background); return nil })
	g.Go(func() error { s.watchDeadLetters(background); return nil })
	g.Go(func() error { s.watchProcesses(background); return nil })

	s.setPhase("first questions")
	if err := s.warmUp(ctx); err != nil {
		return err
	}
	s.setPhase("breaking")
	if err := s.askAndBreak(ctx); err != nil {
		return err
	}
	s.setPhase("waiting for the outcomes")
	if err := s.awaitOutcomes(ctx); err != nil {
		return err
	}
	s.setPhase("last connections")
	return s.eachUser(ctx, func(ctx context.Context, u *user) error { return u.reconnect(ctx, 0) })
}

// warmUp lets every user ask one question and waits for the answers, at most for drainTime.
func (s *clientSoak) warmUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.drainTime())
	defer cancel()
	return s.eachUser(ctx, func(ctx context.Context, u *user) error { return u.warmUp(ctx) })
}

// askAndBreak lets the users ask while faults are injected. When enough was asked and broken, it repairs everything and
// waits for the open answers, at most for drainTime.
func (s *clientSoak) askAndBreak(ctx context.Context) error {
	breaking, repair := context.WithCancel(ctx)
	defer repair()
	broken := make(chan error, 1)
	go func() { broken <- s.breakThings(breaking) }() // ends with breaking
	began := time.Now()
	more := func() bool {
		s.mu.Lock()
		required := s.required
		s.mu.Unlock()
		return time.Since(began) < s.options.For || int(s.asked.Load()) < s.options.Messages || required < s.Faults
	}
	draining, expire := context.WithCancel(ctx)
	defer expire()
	asking, stopAsking := context.WithCancel(ctx)
	var supervisor sync.WaitGroup
	defer supervisor.Wait()
	defer stopAsking()
	supervisor.Go(func() { // ends with asking
		for more() && asking.Err() == nil {
			_ = retry.Sleep(asking, 50*time.Millisecond)
		}
		repair()
		if retry.Sleep(asking, s.drainTime()) == nil {
			expire()
		}
	})
	err := s.eachUser(draining, func(ctx context.Context, u *user) error {
		if !u.leaves {
			return u.chat(ctx, more)
		}
		for more() {
			if err := u.askAndLeave(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	stopAsking()
	if err := <-broken; err != nil {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case draining.Err() != nil:
		s.fail("questions were still open %s after the last repair: %v", s.drainTime(), err)
		return nil
	}
	return err
}

// drainTime bounds a phase after the last question was asked.
func (s *clientSoak) drainTime() time.Duration {
	return 2*s.pace.Deadline + 2*s.pace.Grace + time.Minute
}

// eachUser runs a function for every user at the same time.
func (s *clientSoak) eachUser(ctx context.Context, do func(context.Context, *user) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, u := range s.users {
		g.Go(func() error { return do(ctx, u) })
	}
	return g.Wait()
}

// watchDeadLetters marks dead-lettered questions until ctx ends, so that no user waits for the answers.
func (s *clientSoak) watchDeadLetters(ctx context.Context) {
	for retry.Sleep(ctx, s.pace.Sweep) == nil {
		deadLetters, err := s.deadLetters(ctx)
		if err != nil {
			if ctx.Err() == nil {
				s.fail("watch the dead letters: %v", err)
			}
			return
		}
		s.mu.Lock()
		questions := byCorrelation(s.accepted)
		for _, d := range deadLetters {
			if q, ok := questions[d.CorrelationID]; ok {
				s.dead[q] = true
			}
		}
		s.mu.Unlock()
	}
}

// byCorrelation inverts the map of accepted questions.
func byCorrelation(accepted map[questionID]string) map[string]questionID {
	m := make(map[string]questionID, len(accepted))
	for q, id := range accepted {
		m[id] = q
	}
	return m
}

// awaitOutcomes waits until every accepted question has an answer or a dead letter, no delivery is pending, and every
// dead delivery is announced, at most for drainTime. No user waits for the questions of users who left: Pub/Sub may still
// retry such a question.
func (s *clientSoak) awaitOutcomes(ctx context.Context) error {
	limit := time.Now().Add(s.drainTime())
	for {
		open, err := s.openQuestions(ctx)
		if err != nil {
			return err
		}
		pending, err := s.entries(ctx, s.deliveries().Where("state", "==", delivery.Pending))
		if err != nil {
			return err
		}
		unannounced, err := s.entries(ctx, s.deliveries().Where("state", "==", delivery.Dead).Where("announced", "==", false))
		if err != nil {
			return err
		}
		if open+len(pending)+len(unannounced) == 0 {
			return nil
		}
		if time.Now().After(limit) {
			s.fail("%s after the last repair: %d questions without an outcome, %d pending deliveries, %d unannounced dead deliveries",
				s.drainTime(), open, len(pending), len(unannounced))
			return nil
		}
		if err := retry.Sleep(ctx, s.pace.Sweep/2); err != nil {
			return err
		}
	}
}

// openQuestions counts the accepted questions with neither an answer nor a dead letter.
func (s *clientSoak) openQuestions(ctx context.Context) (int, error) {
	l, err := s.readLedger(ctx)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	open := 0
	for _, correlation := range s.accepted {
		if len(l.entries[correlation]) == 0 && len(l.deadLetters[correlation]) == 0 {
			open++
		}
	}
	return open, nil
}
