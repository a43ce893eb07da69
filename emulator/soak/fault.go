package soak

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Kind is a kind of fault.
type Kind string

// The kinds of faults. [Kinds] and [PlatformKinds] explain each kind.
const (
	KillGateway          Kind = "kill-gateway"
	KillBeforeSettling   Kind = "kill-before-settling"
	StopGateway          Kind = "stop-gateway"
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

// KindInfo explains a kind of fault.
type KindInfo struct {
	Kind    Kind
	Meaning string
}

// Kinds lists the faults of [RunClients]. In addition, every gateway has a wrong clock.
var Kinds = []KindInfo{
	{KillGateway, "SIGKILL of a gateway; a new gateway replaces it"},
	{KillBeforeSettling, "SIGKILL of a gateway after it sent an answer and before it recorded the outcome"},
	{KillFunction, "SIGKILL of a function; the function starts again"},
	{Roll, "SIGTERM of a gateway after its successor serves; the gateways take turns"},
	{PauseGateway, "SIGSTOP of a gateway, then SIGCONT"},
	{AcksLost, "Pub/Sub forgets acknowledgements and delivers again"},
	{PushAnswersLost, "the response to a push is lost after the function did its work"},
	{Reorder, "messages with different ordering keys overtake each other"},
	{PublishUnavailable, "Publish returns UNAVAILABLE"},
	{PublishTimeout, "Publish returns DEADLINE_EXCEEDED after a wait"},
	{PublishAnswerLost, "Publish stores the messages and returns UNAVAILABLE"},
	{FirestoreAborted, "Commit returns ABORTED"},
	{FirestoreUnavailable, "Firestore returns UNAVAILABLE"},
	{FirestoreSlow, "Firestore answers late"},
	{FirestoreAnswerLost, "Commit commits and returns UNAVAILABLE"},
	{CutPubSub, "the network between a gateway and Pub/Sub is cut"},
	{CutFirestore, "the network between a gateway and Firestore is cut"},
	{CutClients, "the network between a gateway and its clients is cut"},
}

// PlatformKinds lists the faults of [RunPlatforms].
var PlatformKinds = []KindInfo{
	{KillGateway, "SIGKILL of a gateway; a new gateway replaces it"},
	{KillBeforeSettling, "SIGKILL of a gateway after it sent an answer and before it recorded the outcome"},
	{StopGateway, "SIGTERM of a gateway; a new gateway replaces it"},
}

// names returns the kinds in a table.
func names(table []KindInfo) (kinds []Kind) {
	for _, info := range table {
		kinds = append(kinds, info.Kind)
	}
	return kinds
}

// fault is a planned fault.
type fault struct {
	kind   Kind
	after  time.Duration // pause since the previous fault began
	length time.Duration
	rate   float64 // share of calls, deliveries or answers affected, from 0 to 1
	target uint64  // selects the gateway or function, modulo their number
	silent bool    // for cuts: connections stay open and data disappears, instead of connections breaking
}

// String describes the fault for reports and errors.
func (f fault) String() string {
	s := fmt.Sprintf("%s for %s", f.kind, f.length.Round(time.Millisecond))
	if f.rate < 1 {
		s += fmt.Sprintf(", %.0f %%", 100*f.rate)
	}
	return s
}

// schedule draws faults. The same seed, pace and kinds give the same faults. A schedule belongs to one goroutine at a time.
type schedule struct {
	rng   *rand.Rand
	pace  Pace
	kinds []Kind
	bag   []Kind // kinds still to come before any kind repeats
}

// newSchedule makes a schedule. kinds must not be empty.
func newSchedule(seed uint64, pace Pace, kinds []Kind) *schedule {
	return &schedule{rng: rand.New(rand.NewPCG(seed, 0)), pace: pace, kinds: kinds}
}

// next draws the next fault. Every kind comes once before any kind repeats.
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
	case KillGateway, KillBeforeSettling, StopGateway, KillFunction, Roll, PauseGateway, CutPubSub, CutFirestore, CutClients:
		f.rate = 1
	case PublishUnavailable, PublishTimeout:
		f.rate += 0.6
	}
	return f
}

// skew draws the error of a gateway's clock.
func (s *schedule) skew() time.Duration { return s.between(-s.pace.Skew, s.pace.Skew) }

// between draws a duration from a range.
func (s *schedule) between(least, most time.Duration) time.Duration {
	return least + time.Duration(s.rng.Float64()*float64(most-least))
}
