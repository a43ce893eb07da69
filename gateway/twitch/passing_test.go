package twitch

import (
	"slices"
	"strings"
	"testing"
	"time"

	"parley.internal/emulator/emulatortest"
	fake "parley.internal/emulator/twitch"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
)

// passing is a world with a stopped clock at Twitch, and with a bot without privileges.
type passing struct {
	*world
	clock   *emulatortest.Clock
	channel string
}

func newPassing(t *testing.T, opts ...fake.Option) passing {
	clock := emulatortest.NewClock(time.Now())
	w := newWorld(t, write, append(opts, fake.WithClock(clock.Now))...)
	channel := w.channel("streamer")
	if err := w.twitch.SetRole(channel, w.bot.Login, fake.Role{}); err != nil {
		t.Fatal(err)
	}
	w.user("alice")
	return passing{w, clock, channel}
}

func (p passing) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// refused waits until Twitch refused messages twice, and checks the code.
func (p passing) refused(code string) {
	p.t.Helper()
	eventually(p.t, "Twitch refuses a message twice: "+code, func() bool { return len(p.twitch.Refused(p.channel)) >= 2 })
	if got := p.twitch.Refused(p.channel); got[0] != code {
		p.t.Fatalf("refused with %s; want %s", got[0], code)
	}
}

// once checks that these are the bot's lines, and that there is no dead letter.
func (p passing) once(want ...string) {
	p.t.Helper()
	var texts []string
	for _, l := range p.sent(p.channel) {
		texts = append(texts, l.Text)
	}
	if !slices.Equal(texts, want) {
		p.t.Errorf("in the chat are %q; want %q", texts, want)
	}
	if docs, err := p.firestore.Collection("deadletters").Documents(p.t.Context()).GetAll(); err != nil || len(docs) != 0 {
		p.t.Errorf("%d dead letters, %v; want none", len(docs), err)
	}
}

func TestARefusalThatEndsByItselfIsTriedAgain(t *testing.T) {
	t.Parallel()
	pause := fake.WithLimits(fake.Limits{ChannelMessages: fake.Window{N: 1, Per: time.Second}})
	same := strings.Repeat("x", maxMessage)
	for _, tt := range []struct {
		name, code string
		opts       []fake.Option
		arm        func(p passing)
		answers    []string
		lines      []string // in the chat, in the end
		waits      time.Duration
	}{
		{"the same text", "msg_duplicate", nil, func(passing) {}, []string{"same", "same"}, []string{"same", "same"}, 30 * time.Second},
		{"a part with the same text", "msg_duplicate", nil, func(passing) {}, []string{same + " " + same}, []string{same, same}, 30 * time.Second},
		{"slow mode", "msg_slowmode", nil, func(p passing) { p.must(p.twitch.SetSettings(p.channel, fake.Settings{Slow: 12 * time.Second})) },
			[]string{"one", "two"}, []string{"one", "two"}, 12 * time.Second},
		{"a part in slow mode", "msg_slowmode", nil, func(p passing) { p.must(p.twitch.SetSettings(p.channel, fake.Settings{Slow: 12 * time.Second})) },
			[]string{same + " end"}, []string{same, "end"}, 12 * time.Second},
		{"too fast", "msg_ratelimit", []fake.Option{pause}, func(passing) {}, []string{"one", "two"}, []string{"one", "two"}, time.Second},
		{"a part too fast", "msg_ratelimit", []fake.Option{pause}, func(passing) {}, []string{same + " end"}, []string{same, "end"}, time.Second},
		{"a time-out of the bot", "msg_timedout", nil, func(p passing) { p.must(p.twitch.Ban(p.channel, p.bot.Login, 6*time.Second, "")) },
			[]string{"one"}, []string{"one"}, 6 * time.Second},
	} {
		for _, transport := range []string{transportHelix, transportIRC} {
			t.Run(tt.name+" over "+transport, func(t *testing.T) {
				t.Parallel()
				p := newPassing(t, tt.opts...)
				p.start("a", transport, []string{p.channel})
				p.joined(p.channel)
				tt.arm(p)
				var all []answered
				for _, text := range tt.answers { // each to its own question: the same text is not the same delivery
					all = append(all, p.answer(p.say(p.channel, "alice", "hello?"), text))
				}
				p.refused(tt.code)
				if got := p.entry(all[len(all)-1]).State; got == delivery.Delivered || got == delivery.Dead {
					t.Fatalf("the last answer is %s while Twitch refuses it", got)
				}
				p.clock.Advance(tt.waits)
				for _, a := range all {
					p.reaches(a, delivery.Delivered)
				}
				p.once(tt.lines...)
			})
		}
	}
}

// A time-out in the middle of an answer.
func TestAPartWaitsForTheEndOfATimeout(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{transportHelix, transportIRC} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			p := newPassing(t)
			p.start("a", transport, []string{p.channel})
			p.joined(p.channel)
			p.twitch.FailChat(fake.ChatFault{Notice: "msg_timedout", Skip: 1, Times: 3})
			first := strings.Repeat("x", maxMessage)
			p.reaches(p.answer(p.say(p.channel, "alice", "hello?"), first+" end"), delivery.Delivered)
			p.once(first, "end")
		})
	}
}

func TestALastingTimeoutIsOneDeadLetter(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{transportHelix, transportIRC} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			p := newPassing(t)
			p.start("a", transport, []string{p.channel})
			p.joined(p.channel)
			p.sender = delivery.NewSender(p.ledger, discard{}, delivery.Config{Deadline: 4 * time.Second, Retention: time.Hour}, time.Now)
			p.must(p.twitch.Ban(p.channel, p.bot.Login, time.Hour, ""))
			e := p.reaches(p.answer(p.say(p.channel, "alice", "hello?"), "never"), delivery.Dead)
			if e.Reason != string(deadletter.SenderRefused) || !strings.Contains(e.Message, "You are timed out") {
				t.Errorf("%s: %s", e.Reason, e.Message)
			}
			if docs, err := p.firestore.Collection("deadletters").Documents(t.Context()).GetAll(); err != nil || len(docs) != 1 || len(p.sent(p.channel)) != 0 {
				t.Errorf("%d dead letters, %v, %d lines; want one and none", len(docs), err, len(p.sent(p.channel)))
			}
		})
	}
}

// While an answer waits, no instance has its claim: the next owner of the channel sends the answer.
func TestTheNextOwnerSendsAWaitingAnswer(t *testing.T) {
	t.Parallel()
	p := newPassing(t)
	p.lease = quickLease
	victim := p.start("victim", transportHelix, []string{p.channel})
	p.joined(p.channel)
	p.must(p.twitch.Ban(p.channel, p.bot.Login, 6*time.Second, ""))
	a := p.answer(p.say(p.channel, "alice", "hello?"), "one")
	p.refused("msg_timedout")
	eventually(t, "the claim is released", func() bool { return p.entry(a).State == delivery.Pending })
	victim.stop()
	p.start("heir", transportHelix, []string{p.channel})
	p.joined(p.channel)
	p.clock.Advance(6 * time.Second)
	p.reaches(a, delivery.Delivered)
	p.once("one")
}

// A channel where the bot waits does not delay another channel.
func TestAWaitingAnswerDelaysNoOtherChannel(t *testing.T) {
	t.Parallel()
	p := newPassing(t)
	other := p.world.channel("other")
	p.start("a", transportIRC, []string{p.channel, other})
	p.joined(p.channel, other)
	p.must(p.twitch.Ban(p.channel, p.bot.Login, 6*time.Second, ""))
	waiting := p.answer(p.say(p.channel, "alice", "hello?"), "one")
	p.refused("msg_timedout")
	p.reaches(p.answer(p.say(other, "alice", "hello?"), "two"), delivery.Delivered)
	p.clock.Advance(6 * time.Second)
	p.reaches(waiting, delivery.Delivered)
	p.once("one")
}
