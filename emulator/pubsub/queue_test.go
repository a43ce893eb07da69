package pubsub

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// bench is a queue in fake time, with recorded callbacks.
type bench struct {
	*queue
	t       *testing.T
	id      uint64
	dead    []string
	deadErr error
	expired atomic.Bool
	settled int
}

// inBubble runs a test on a queue in fake time.
func inBubble(t *testing.T, s settings, test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t}
		b.queue = newQueue(s, callbacks{
			forward: func(m *message, attempts int) error {
				if b.deadErr == nil {
					b.dead = append(b.dead, fmt.Sprintf("%s after %d", m.pb.Data, attempts))
				}
				return b.deadErr
			},
			settled: func(ids []uint64) { b.settled += len(ids) },
			expired: func() { b.expired.Store(true) },
		})
		defer b.close(errClosed)
		test(b)
	})
}

func (b *bench) publish(key string, datas ...string) {
	var ms []*message
	for _, d := range datas {
		b.id++
		ms = append(ms, &message{
			id:        b.id,
			pb:        &pubsubpb.PubsubMessage{Data: []byte(d), OrderingKey: key},
			size:      len(d),
			published: time.Now(),
		})
	}
	b.add(ms)
}

func (b *bench) join(c *consumer) *consumer {
	b.t.Helper()
	if err := b.queue.join(c); err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) stream() *consumer { b.t.Helper(); return b.join(&consumer{lease: 10 * time.Second}) }

func (b *bench) take(c *consumer) []delivery {
	b.t.Helper()
	ds, err := c.take(maxBatchMessages, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return ds
}

// want takes deliveries and checks their messages.
func (b *bench) want(c *consumer, datas ...string) []delivery {
	b.t.Helper()
	ds := b.take(c)
	got := []string{}
	for _, d := range ds {
		got = append(got, string(d.message.pb.Data))
	}
	if !slices.Equal(got, datas) {
		b.t.Fatalf("took %q, want %q", got, datas)
	}
	return ds
}

func (b *bench) ack(ds ...delivery) {
	b.t.Helper()
	if _, err := b.queue.ack(acks(ds)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) nack(ds ...delivery) { b.t.Helper(); b.extend(0, ds...) }

func (b *bench) extend(d time.Duration, ds ...delivery) {
	b.t.Helper()
	if _, err := b.queue.extend(acks(ds), d); err != nil {
		b.t.Fatal(err)
	}
}

func acks(ds []delivery) []ackID {
	ids := []ackID{}
	for _, d := range ds {
		ids = append(ids, d.ack)
	}
	return ids
}

// pass advances the fake time.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// woken advances the fake time by d and reports whether the consumer was signalled.
func woken(c *consumer, d time.Duration) bool {
	pass(d)
	select {
	case <-c.wakes:
		return true
	default:
		return false
	}
}

var plain = settings{}

func TestAcknowledgedMessagesLeaveNothingBehind(t *testing.T) {
	inBubble(t, settings{ordered: true}, func(b *bench) {
		c := b.stream()
		for i := range 3000 {
			b.publish([]string{"", "k" + strconv.Itoa(i%7)}[i%2], "m")
		}
		for range 10 { // a take returns at most maxBatchMessages
			b.ack(b.take(c)...)
		}
		if n := b.len(); n != 0 || len(b.entries) != 0 || len(b.keys) != 0 || len(b.times) != 0 || b.ready.len() != 0 || c.messages != 0 || c.bytes != 0 {
			t.Errorf("left: %d messages, %d entries, %d keys, %d times, %d ready, %d messages and %d bytes outstanding",
				n, len(b.entries), len(b.keys), len(b.times), b.ready.len(), c.messages, c.bytes)
		}
		if b.settled != 3000 {
			t.Errorf("%d messages settled, want 3000", b.settled)
		}
	})
}

func TestLeaseEndsAtItsDeadlineAndNotBefore(t *testing.T) {
	inBubble(t, plain, func(b *bench) {
		c := b.stream()
		b.publish("", "a")
		b.want(c, "a")
		b.want(c)
		if woken(c, 9999*time.Millisecond) {
			t.Fatal("the message came back before its deadline")
		}
		if !woken(c, time.Millisecond) {
			t.Fatal("the message did not come back at its deadline")
		}
		b.want(c, "a")
	})
}

func TestExtendedLeaseEndsAtItsNewDeadline(t *testing.T) {
	inBubble(t, plain, func(b *bench) {
		c := b.stream()
		b.publish("", "a")
		ds := b.want(c, "a")
		b.want(c)
		pass(5 * time.Second)
		b.extend(time.Minute, ds...)
		if woken(c, time.Minute-time.Millisecond) {
			t.Fatal("the message came back before its new deadline")
		}
		if !woken(c, time.Millisecond) {
			t.Fatal("the message did not come back at its new deadline")
		}
	})
}

func TestLateAckCountsWhileTheMessageWaits(t *testing.T) {
	inBubble(t, plain, func(b *bench) {
		c := b.stream()
		b.publish("", "a")
		ds := b.want(c, "a")
		pass(11 * time.Second)
		b.ack(ds...)
		b.want(c)
		if b.len() != 0 {
			t.Error("the message is still there")
		}
	})
}

func TestAckOfAnEarlierDeliveryDoesNotEndALaterLease(t *testing.T) {
	inBubble(t, plain, func(b *bench) {
		c := b.stream()
		b.publish("", "a")
		first := b.want(c, "a")
		b.nack(first...)
		second := b.want(c, "a")
		b.ack(first...)
		b.nack(first...)
		if b.len() != 1 {
			t.Fatal("the acknowledgement of the first delivery ended the second")
		}
		b.want(c)
		b.ack(second...)
		if b.len() != 0 {
			t.Error("the message is still there")
		}
	})
}

func TestExactlyOnceTakesNoLateAck(t *testing.T) {
	inBubble(t, settings{exactlyOnce: true}, func(b *bench) {
		c := b.stream()
		b.publish("", "a", "b")
		ds := b.want(c, "a", "b")
		if v, _ := b.queue.ack(acks(ds[:1])); v[0] != ackDone {
			t.Error("an acknowledgement in time was refused")
		}
		if v, _ := b.queue.ack(acks(ds[:1])); v[0] != ackStale {
			t.Error("a second acknowledgement was taken")
		}
		pass(11 * time.Second)
		if v, _ := b.queue.ack(acks(ds[1:])); v[0] != ackStale {
			t.Error("a late acknowledgement was taken")
		}
		if v, _ := b.queue.extend(acks(ds[1:]), time.Minute); v[0] != ackStale {
			t.Error("a late extension was taken")
		}
		b.want(c, "b")
	})
}

func TestFlowControlHoldsBackMessagesAndBytes(t *testing.T) {
	inBubble(t, plain, func(b *bench) {
		few := b.join(&consumer{lease: time.Minute, maxMessages: 2})
		b.publish("", "a", "b", "c", "d")
		ds := b.want(few, "a", "b")
		b.want(few)
		b.ack(ds[0])
		if !woken(few, 0) {
			t.Fatal("room did not wake the consumer")
		}
		b.want(few, "c")
		few.leave()
		small := b.join(&consumer{lease: time.Minute, maxBytes: 10})
		b.publish("", "12345678", "1234", "x")
		ds = b.want(small, "d", "12345678", "1234")
		b.want(small)
		b.nack(ds[0])
		b.want(small)
		b.ack(ds[1])
		b.want(small, "x", "d")
	})
}

func TestRetryPolicyDoublesThePauseOfAMessageUpToTheMaximum(t *testing.T) {
	inBubble(t, settings{minBackoff: time.Second, maxBackoff: 5 * time.Second}, func(b *bench) {
		c := b.stream()
		b.publish("", "poison")
		for _, pause := range []time.Duration{1, 2, 4, 5, 5} {
			b.nack(b.want(c, "poison")...)
			b.want(c)
			b.publish("", "other")
			if !woken(c, 0) {
				t.Fatal("another message waits for the pause")
			}
			b.ack(b.want(c, "other")...)
			b.want(c)
			if woken(c, pause*time.Second-time.Millisecond) {
				t.Fatalf("came back before its pause of %d s", pause)
			}
			if !woken(c, time.Millisecond) {
				t.Fatalf("did not come back after its pause of %d s", pause)
			}
		}
	})
}

func TestExpiredLeaseIsPacedByTheRetryPolicyToo(t *testing.T) {
	inBubble(t, settings{minBackoff: 3 * time.Second, maxBackoff: 5 * time.Second}, func(b *bench) {
		c := b.stream()
		b.publish("", "a")
		b.want(c, "a")
		b.want(c)
		if woken(c, 13*time.Second-time.Millisecond) {
			t.Fatal("came back before the lease of 10 s and the pause of 3 s")
		}
		if !woken(c, time.Millisecond) {
			t.Fatal("did not come back")
		}
	})
}

func TestOrderedKeyComesBackFromTheNackedMessageOn(t *testing.T) {
	inBubble(t, settings{ordered: true}, func(b *bench) {
		c := b.stream()
		b.publish("k", "1", "2", "3")
		ds := b.want(c, "1", "2", "3")
		b.publish("k", "4")
		b.ack(ds[0], ds[2])
		b.nack(ds[1])
		ds = b.want(c, "2", "3", "4")
		b.ack(ds...)
		if b.len() != 0 || len(b.entries) != 0 {
			t.Error("messages are left")
		}
	})
}

func TestOrderedKeyComesBackWhenALeaseEnds(t *testing.T) {
	inBubble(t, settings{ordered: true}, func(b *bench) {
		c := b.stream()
		b.publish("k", "1", "2")
		ds := b.want(c, "1", "2")
		b.extend(time.Minute, ds[1])
		pass(10 * time.Second)
		again := b.want(c, "1", "2")
		b.ack(ds[1]) // has no effect: the lease ended with the lease of message 1
		b.nack(again[0])
		b.want(c, "1", "2")
	})
}

func TestOtherKeysNeverWait(t *testing.T) {
	inBubble(t, settings{ordered: true, minBackoff: time.Minute, maxBackoff: time.Minute}, func(b *bench) {
		c := b.stream()
		b.publish("bad", "1", "2")
		b.nack(b.want(c, "1", "2")[0])
		b.want(c)
		b.publish("good", "3")
		b.publish("", "4")
		b.publish("bad", "5")
		b.want(c, "3", "4")
		b.want(c)
		if !woken(c, time.Minute) {
			t.Fatal("the bad key did not come back")
		}
		b.want(c, "1", "2", "5")
	})
}

func TestKeyStaysWithItsStreamWhileMessagesAreOutstanding(t *testing.T) {
	inBubble(t, settings{ordered: true}, func(b *bench) {
		first, second := b.stream(), b.stream()
		b.publish("k", "1")
		one := b.want(first, "1")
		b.publish("k", "2")
		b.want(second)
		two := b.want(first, "2")
		b.ack(one...)
		b.publish("k", "3")
		b.want(second)
		b.ack(two...)
		b.ack(b.want(first, "3")...)
		b.publish("k", "4")
		four := b.want(second, "4")
		// A stream keeps its key after its end, until the held messages are settled.
		second.leave()
		b.publish("k", "5")
		b.want(first)
		b.ack(four...)
		b.want(first, "5")
	})
}

func TestPullGetsOneBatchOfAKeyAtATime(t *testing.T) {
	inBubble(t, settings{ordered: true}, func(b *bench) {
		pull := func() *consumer { return b.join(&consumer{perKey: batched, lease: 10 * time.Second}) }
		b.publish("k", "1", "2")
		c := pull()
		ds := b.want(c, "1", "2")
		c.leave()
		b.publish("k", "3")
		c = pull()
		b.want(c)
		b.ack(ds[0])
		b.want(c)
		b.ack(ds[1])
		b.want(c, "3")
	})
}

func TestSingleModeGetsOneMessageOfAKeyAtATime(t *testing.T) {
	inBubble(t, settings{ordered: true}, func(b *bench) {
		c := b.join(&consumer{perKey: single})
		b.publish("k", "1", "2")
		b.publish("l", "3", "4")
		ds := b.want(c, "1", "3")
		b.want(c)
		b.ack(ds[0])
		b.want(c, "2")
		b.nack(ds[1])
		b.want(c, "3")
	})
}

func TestKeysWithoutOrderingAreDeliveredAtOnce(t *testing.T) {
	inBubble(t, plain, func(b *bench) {
		b.publish("k", "1", "2")
		b.want(b.join(&consumer{perKey: single}), "1", "2")
	})
}

func TestMessageIsForwardedAfterItsLastAttempt(t *testing.T) {
	inBubble(t, settings{maxAttempts: 5}, func(b *bench) {
		c := b.stream()
		b.publish("", "poison")
		for attempt := 1; attempt <= 5; attempt++ {
			ds := b.want(c, "poison")
			if ds[0].attempt != attempt {
				t.Errorf("attempt %d, want %d", ds[0].attempt, attempt)
			}
			if attempt%2 == 0 {
				pass(10 * time.Second)
			} else {
				b.nack(ds...)
			}
		}
		b.want(c)
		if !slices.Equal(b.dead, []string{"poison after 5"}) || b.len() != 0 {
			t.Errorf("forwarded %q, %d left", b.dead, b.len())
		}
	})
}

func TestKeyGoesOnAfterAForwardedMessage(t *testing.T) {
	inBubble(t, settings{ordered: true, maxAttempts: 5}, func(b *bench) {
		c := b.join(&consumer{perKey: single})
		b.publish("k", "poison", "next")
		for range 5 {
			b.nack(b.want(c, "poison")...)
		}
		b.ack(b.want(c, "next")...)
		if len(b.dead) != 1 || len(b.entries) != 0 {
			t.Errorf("forwarded %q, %d left", b.dead, len(b.entries))
		}
	})
}

func TestMessageThatCannotBeForwardedIsDeliveredAgain(t *testing.T) {
	inBubble(t, settings{maxAttempts: 5, ordered: true}, func(b *bench) {
		b.deadErr = errors.New("no such topic")
		c := b.join(&consumer{perKey: single})
		b.publish("k", "poison")
		for range 7 {
			b.nack(b.want(c, "poison")...)
		}
		b.deadErr = nil
		b.nack(b.want(c, "poison")...)
		b.want(c)
		if !slices.Equal(b.dead, []string{"poison after 8"}) {
			t.Errorf("forwarded %q", b.dead)
		}
	})
}

func TestRetentionDropsUntakenMessages(t *testing.T) {
	inBubble(t, settings{retention: 10 * time.Minute, ordered: true}, func(b *bench) {
		b.publish("", "a")
		b.publish("k", "b")
		pass(5 * time.Minute)
		b.publish("k", "c")
		pass(5*time.Minute + time.Second)
		if n := b.len(); n != 1 {
			t.Errorf("%d messages are left, want 1", n)
		}
		b.ack(b.want(b.stream(), "c")...)
		pass(time.Hour)
		b.publish("", "d")
		pass(11 * time.Minute)
		if n := b.len(); n != 0 {
			t.Errorf("%d messages are left, want none", n)
		}
	})
}

func TestSubscriptionExpiresOnlyWhenUnused(t *testing.T) {
	day := 24 * time.Hour
	inBubble(t, settings{ttl: day}, func(b *bench) {
		pass(day - time.Second)
		c := b.stream()
		pass(3 * day)
		c.leave()
		pass(day - time.Second)
		if b.expired.Load() {
			t.Fatal("expired too early")
		}
		pass(time.Second)
		if !b.expired.Load() {
			t.Error("did not expire")
		}
	})
}

func TestPurgeDropsMessagesPublishedBefore(t *testing.T) {
	inBubble(t, settings{ordered: true}, func(b *bench) {
		c := b.stream()
		b.publish("k", "1", "2")
		b.publish("", "3")
		ds := b.want(c, "1", "3", "2")
		b.nack(ds[1])
		pass(time.Second)
		b.publish("k", "4")
		b.purge(time.Now())
		b.ack(ds...)
		b.want(c, "4")
		if c.messages != 1 || b.len() != 1 {
			t.Errorf("%d outstanding, %d left, want 1 and 1", c.messages, b.len())
		}
	})
}

func TestRefusedDeliveryIsGivenToTheNextInOrder(t *testing.T) {
	inBubble(t, settings{ordered: true, minBackoff: time.Minute, maxBackoff: time.Minute, maxAttempts: 5}, func(b *bench) {
		first, second := b.stream(), b.stream()
		b.publish("k", "1", "2")
		ds := b.want(first, "1", "2")
		first.leave()
		b.refuse(ds)
		if ds = b.want(second, "1", "2"); ds[0].attempt != 1 {
			t.Errorf("attempt %d, want 1: a delivery that was never sent is none", ds[0].attempt)
		}
	})
}

func TestIdleConsumersShareABurst(t *testing.T) {
	inBubble(t, plain, func(b *bench) {
		cs := []*consumer{b.stream(), b.stream(), b.stream()}
		for _, c := range cs {
			b.want(c)
		}
		b.publish("", "1", "2", "3", "4", "5", "6")
		for _, c := range cs {
			if !woken(c, 0) {
				t.Fatal("a consumer was not woken")
			}
			if ds := b.take(c); len(ds) != 2 {
				t.Errorf("a consumer got %d of 6 messages, want 2", len(ds))
			}
		}
	})
}

func TestCloseEndsConsumersWithTheReason(t *testing.T) {
	inBubble(t, plain, func(b *bench) {
		c := b.stream()
		b.want(c)
		reason := errors.New("gone")
		b.close(reason)
		if !woken(c, 0) {
			t.Fatal("the consumer was not woken")
		}
		if _, err := c.take(1, nil); err != reason {
			t.Errorf("take: %v, want %v", err, reason)
		}
		if _, err := b.queue.ack(nil); err != reason {
			t.Errorf("ack: %v, want %v", err, reason)
		}
	})
}

func TestHoursWithoutAConsumerKeepTheQueueBounded(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		inBubble(t, settings{ordered: ordered, retention: 10 * time.Minute, minBackoff: time.Second, maxBackoff: time.Minute}, func(b *bench) {
			for minute := range 6 * 60 {
				for i := range 10 {
					b.publish(fmt.Sprintf("user %d", (minute*10+i)%1000), "question")
				}
				pass(time.Minute)
				// A sweep comes after the retention, and then after each sixteenth of it.
				if n, most := b.ready.len(), 11*10; b.len() > most || n > most || len(b.keys) > most || len(b.ready.ring) > 4*most {
					b.t.Fatalf("after %d minutes: %d messages, %d ready items in a ring of %d, %d keys", minute+1, b.len(), n, len(b.ready.ring), len(b.keys))
				}
			}
			if got := b.take(b.stream()); len(got) != b.len() {
				b.t.Errorf("a consumer got %d of %d messages", len(got), b.len())
			}
		})
	}
}

func TestHoursOfAcknowledgedMessagesLeaveNothing(t *testing.T) {
	for _, s := range []settings{{}, {ordered: true}, {exactlyOnce: true}, {ordered: true, exactlyOnce: true}} {
		inBubble(t, s, func(b *bench) {
			c := b.stream()
			for hour := range 10 {
				for i := range 100 {
					b.publish(fmt.Sprintf("user %d", hour*100+i), "question")
					got := b.take(c)
					if i%10 == 0 { // the lease ends, and the message comes again
						pass(11 * time.Second)
						got = b.take(c)
					}
					b.ack(got...)
				}
				pass(time.Hour)
				if len(b.entries)+len(b.keys)+b.ready.len()+len(b.times)+c.keys.len() > 0 {
					b.t.Fatalf("%+v: after %d hours: %d entries, %d keys, %d ready items, %d times, %d keys of the consumer",
						s, hour+1, len(b.entries), len(b.keys), b.ready.len(), len(b.times), c.keys.len())
				}
			}
		})
	}
}

// TestAnyInterleavingKeepsOrderAndLosesNothing drives a queue with random consumers, acknowledgements, nacks, ends of
// consumers, and waits. It checks the two guarantees for a key: no message is lost, and after a delivery comes the next
// message or, in a redelivery, an earlier message.
func TestAnyInterleavingKeepsOrderAndLosesNothing(t *testing.T) {
	for seed := range uint64(200) {
		inBubble(t, settings{ordered: true, minBackoff: 50 * time.Millisecond, maxBackoff: time.Second}, func(b *bench) {
			r := rand.New(rand.NewPCG(seed, 1))
			type held struct {
				delivery
				c *consumer
			}
			var cs []*consumer
			var out []held
			keys := []string{"a", "b", "c"}
			last := map[string]int{}      // number of the last published message of each key
			delivered := map[string]int{} // number of the latest delivered message of each key
			overtakings := 0
			for step := range 400 {
				switch n := r.IntN(10); {
				case n < 3 && step < 300:
					k := keys[r.IntN(len(keys))]
					last[k]++
					b.publish(k, strconv.Itoa(last[k]))
				case n == 3 && len(cs) < 4 || len(cs) == 0:
					cs = append(cs, b.join(&consumer{perKey: keyMode(r.IntN(3)), lease: time.Second, maxMessages: r.IntN(6)}))
				case n == 4 && len(cs) > 1:
					i := r.IntN(len(cs))
					cs[i].leave()
					cs = slices.Delete(cs, i, i+1)
				case n == 5:
					pass(time.Duration(r.IntN(1500)) * time.Millisecond)
				case n < 8 && len(out) > 0:
					i := r.IntN(len(out))
					if r.IntN(3) == 0 {
						b.nack(out[i].delivery)
					} else {
						b.ack(out[i].delivery)
					}
					out = slices.Delete(out, i, i+1)
				default:
					c := cs[r.IntN(len(cs))]
					for _, d := range b.take(c) {
						k := d.message.pb.OrderingKey
						n, _ := strconv.Atoi(string(d.message.pb.Data))
						if n > delivered[k]+1 {
							overtakings++
						}
						delivered[k] = n
						out = append(out, held{d, c})
					}
				}
			}
			if overtakings > 0 {
				t.Fatalf("seed %d: %d deliveries overtook earlier messages of their key", seed, overtakings)
			}
			for _, c := range cs {
				c.leave()
			}
			c := b.stream()
			for range 1000 {
				if b.len() == 0 {
					break
				}
				b.ack(b.take(c)...)
				pass(100 * time.Millisecond)
			}
			total := 0
			for _, n := range last {
				total += n
			}
			if b.settled != total || len(b.entries) != 0 || len(b.keys) != 0 {
				t.Fatalf("seed %d: settled %d of %d, %d entries and %d keys left", seed, b.settled, total, len(b.entries), len(b.keys))
			}
		})
		if t.Failed() {
			return
		}
	}
}
