package soak

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Kind is a kind of fault.
type Kind string

// The kinds of faults. [Kinds] explains each.
const (
	KillGateway          Kind = "kill-gateway"
	KillBeforeSettling   Kind = "kill-before-settling"
	KillFunction         Kind = "kill-function"
	Roll                 Kind = "roll"
	PauseGateway         Kind = "pause-gateway"
	AcksLost             Kind = "acks-lost"
	PushAnswersLost      Kind = "push-answers-lost"
	Reorder              Kind = "reorder"
	PublishUnavailable   Kind = "publish-unavailable"
	PublishTimeout       Kind = "publish-timeout"
	PublishAnswerLost    Kind = "publish-answer-lost"
	FirestoreAborted     Kind = "firestore-aborted"
	FirestoreUnavailable Kind = "firestore-unavailable"
	FirestoreSlow        Kind = "firestore-slow"
	FirestoreAnswerLost  Kind = "firestore-answer-lost"
	CutPubSub            Kind = "cut-gateway-pubsub"
	CutFirestore         Kind = "cut-gateway-firestore"
	CutClients           Kind = "cut-clients"
)

// Explained is a kind of fault with what it does.
type Explained struct {
	Kind    Kind
	Meaning string
}

// Kinds is the table of all kinds. Beside them, every gateway has a clock that is wrong.
var Kinds = []Explained{
	{KillGateway, "SIGKILL of a gateway, and another one in its place"},
	{KillBeforeSettling, "SIGKILL of a gateway that has written an answer and not yet recorded it"},
	{KillFunction, "SIGKILL of a function, and a start"},
	{Roll, "SIGTERM of a gateway, once another one serves in its place; the gateways take turns"},
	{PauseGateway, "SIGSTOP of a gateway, and SIGCONT"},
	{AcksLost, "acknowledgements that Pub/Sub forgets, so that it delivers again"},
	{PushAnswersLost, "pushes whose answer is lost after the function did its work"},
	{Reorder, "messages of different keys that overtake each other"},
	{PublishUnavailable, "Publish answers UNAVAILABLE"},
	{PublishTimeout, "Publish answers DEADLINE_EXCEEDED, after a wait"},
	{PublishAnswerLost, "Publish stores the messages and answers UNAVAILABLE"},
	{FirestoreAborted, "Commit answers ABORTED"},
	{FirestoreUnavailable, "Firestore answers UNAVAILABLE"},
	{FirestoreSlow, "Firestore answers late"},
	{FirestoreAnswerLost, "Commit commits, and answers UNAVAILABLE"},
	{CutPubSub, "the network between a gateway and Pub/Sub"},
	{CutFirestore, "the network between a gateway and Firestore"},
	{CutClients, "the network between a gateway and its clients"},
}

// fault is one fault to be made.
type fault struct {
	kind   Kind
	after  time.Duration // since the one before began
	length time.Duration
	rate   float64 // how many of the calls, deliveries or answers it meets, of 1
	target uint64  // which gateway or function, modulo how many there are
	silent bool    // of a cut: nothing comes through, instead of connections that break
}

func (f fault) String() string {
	s := fmt.Sprintf("%s for %s", f.kind, f.length.Round(time.Millisecond))
	if f.rate < 1 {
		s += fmt.Sprintf(", %.0f %%", 100*f.rate)
	}
	return s
}

// schedule draws faults. The same seed draws the same ones.
type schedule struct {
	rng   *rand.Rand
	pace  Pace
	kinds []Kind
	bag   []Kind // kinds that are still to come before any comes again
}

func kindsOf(table []Explained) (kinds []Kind) {
	for _, k := range table {
		kinds = append(kinds, k.Kind)
	}
	return kinds
}

func newSchedule(seed uint64, pace Pace, kinds []Kind) *schedule {
	return &schedule{rng: rand.New(rand.NewPCG(seed, 0)), pace: pace, kinds: kinds}
}

func (s *schedule) next() fault {
	if len(s.bag) == 0 {
		s.bag = append(s.bag, s.kinds...)
		s.rng.Shuffle(len(s.bag), func(i, j int) { s.bag[i], s.bag[j] = s.bag[j], s.bag[i] })
	}
	f := fault{
		kind:  s.bag[0],
		after: s.between(s.pace.Gap/2, s.pace.Gap*3/2), length: s.between(s.pace.Longest/8, s.pace.Longest),
		rate: 0.02 + 0.28*s.rng.Float64(), target: s.rng.Uint64(), silent: s.rng.IntN(2) == 0,
	}
	s.bag = s.bag[1:]
	switch f.kind {
	case KillGateway, KillBeforeSettling, KillFunction, Roll, PauseGateway, CutPubSub, CutFirestore, CutClients:
		f.rate = 1
	case PublishUnavailable, PublishTimeout:
		f.rate += 0.6
	}
	return f
}

// skew draws how wrong a gateway's clock is.
func (s *schedule) skew() time.Duration { return s.between(-s.pace.Skew, s.pace.Skew) }

func (s *schedule) between(least, most time.Duration) time.Duration {
	return least + time.Duration(s.rng.Float64()*float64(most-least))
}
