package soak

import (
	"slices"
	"testing"
	"time"
)

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	good := ClientOptions{Common: Common{Gateways: 1}, Users: 1, InFlight: 1, Pace: Short}
	goodPlatforms := PlatformOptions{Common: Common{Gateways: 2}, Channels: 1, Guilds: 1, Answers: 1, Every: 1, Gap: 1}
	for name, pace := range map[string]Pace{"Long": Long, "Short": Short, "Rolling": Rolling} {
		o := good
		o.Pace = pace
		if err := o.check(); err != nil {
			t.Errorf("pace %s: %v", name, err)
		}
	}
	if err := goodPlatforms.check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*ClientOptions){
		"no gateway":     func(o *ClientOptions) { o.Gateways = 0 },
		"no user":        func(o *ClientOptions) { o.Users = 0 },
		"no question":    func(o *ClientOptions) { o.InFlight = 0 },
		"a short grace":  func(o *ClientOptions) { o.Pace.Grace = o.Pace.Skew + o.Pace.Longest },
		"a longer fault": func(o *ClientOptions) { o.Pace.Longest = o.Pace.Grace },
	} {
		o := good
		change(&o)
		if o.check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for name, change := range map[string]func(*PlatformOptions){
		"one gateway": func(o *PlatformOptions) { o.Gateways = 1 },
		"no channel":  func(o *PlatformOptions) { o.Channels = 0 },
		"no interval": func(o *PlatformOptions) { o.Every = 0 },
		"no gap":      func(o *PlatformOptions) { o.Gap = 0 },
	} {
		o := goodPlatforms
		change(&o)
		if o.check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestReceivedAnswersCloseTheirQuestions(t *testing.T) {
	s := &clientSoak{harness: &harness{}}
	u := &user{id: "alice", soak: s, asked: 3, open: []string{"q1", "q2", "q3"}, since: map[string]time.Time{"q2": time.Now().Add(-time.Minute)}}
	for _, question := range []string{"q2", "q1", "q2", "nonsense"} {
		u.receive(receipt{question: question})
	}
	if !slices.Equal(u.open, []string{"q3"}) || s.answered.Load() != 2 || len(u.transcript) != 4 {
		t.Errorf("open %v, %d answered, %d receipts", u.open, s.answered.Load(), len(u.transcript))
	}
	if u.overtaken != 1 { // q1 after q2
		t.Errorf("%d answers overtaken; want 1", u.overtaken)
	}
	if u.longest < time.Minute {
		t.Errorf("longest wait %s; want at least a minute", u.longest)
	}
}

func TestDeadQuestionsAreNotAwaited(t *testing.T) {
	s := &clientSoak{dead: map[questionID]bool{{"alice", "q1"}: true, {"bob", "q2"}: true}}
	if got := s.withoutDead("alice", []string{"q1", "q2"}); !slices.Equal(got, []string{"q2"}) {
		t.Errorf("open questions %v; want q2 only", got)
	}
}

func TestDeparturesCountLateFailedAndLeftSubscriptions(t *testing.T) {
	var d Departures
	for _, end := range []departure{
		{exit: exit{took: time.Second, inTime: true, clean: true}},
		{exit: exit{took: 2 * time.Second, inTime: true}, subscriptionLeft: true},
		{exit: exit{took: 10 * time.Second}},
	} {
		d.add(end)
	}
	if want := (Departures{Slowest: 10 * time.Second, Late: 1, Failed: 1, LeftSubscriptions: 1}); d != want {
		t.Errorf("got %+v; want %+v", d, want)
	}
}

func TestQuestionsAreDecodedFromEvents(t *testing.T) {
	got, err := decodeQuestion([]byte(`{"userId": "alice", "metadata": {"id": "q7"}, "type": "chat.message"}`))
	if err != nil || got != (questionID{"alice", "q7"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := decodeQuestion([]byte("hello")); err == nil {
		t.Error("text other than JSON was accepted")
	}
}
