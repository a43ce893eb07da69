package rule

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
	"parley.internal/shared/moderation"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

// Outcome is what the rules of a set make of one event.
type Outcome struct {
	Applied       []Applied // in the order of the rules
	Failed        []Failure
	Evaluated     int // rules whose condition was asked, those that failed included
	OnCooldown    int // rules that hold, but are kept silent
	RelaysDropped int // rules that hold, but would relay what must not be relayed

	size      int // bytes of all texts that were added
	addresses int // that relays go to
}

// Applied is what one rule adds to an event.
type Applied struct {
	ID          string
	Cooldown    time.Duration // 0 for none
	Annotations []event.Annotation
	Candidates  []event.Candidate // those with a text
	Slip        []string
	Egress      *store.RuleEgress  // nil for where the event came from
	Action      *moderation.Action // nil if it does not act
}

// Step is the name under which an answer of this rule goes out.
func (a Applied) Step() string { return "rule:" + a.ID }

// Evaluate finds what the rules add to an event. What they make is dated at. silent is asked for each rule that holds
// and has a cooldown, whether it is still kept silent by it.
func (s *Set) Evaluate(e *event.Event, at time.Time, silent func(id string) bool) Outcome {
	var o Outcome
	in := s.input(e)
	for _, c := range s.rules {
		o.Evaluated++
		holds, err := c.holds(in)
		if err == nil && holds && c.Cooldown > 0 && silent(c.ID) {
			o.OnCooldown++
			continue
		}
		if err == nil && holds {
			err = o.apply(c, in, at)
		}
		if err != nil {
			o.Failed = append(o.Failed, Failure{ID: c.ID, Err: err})
		}
	}
	return o
}

// Repeat finds what the rules with these ids add to an event for which they were found to hold before. It does not ask
// again whether they hold: what they looked at, the user's roles or a cooldown, may have changed since.
func (s *Set) Repeat(e *event.Event, at time.Time, ids []string) Outcome {
	var o Outcome
	if len(ids) == 0 {
		return o
	}
	in := s.input(e)
	for _, c := range s.rules {
		if !slices.Contains(ids, c.ID) {
			continue
		}
		if err := o.apply(c, in, at); err != nil {
			o.Failed = append(o.Failed, Failure{ID: c.ID, Err: err})
		}
	}
	return o
}

func (s *Set) input(e *event.Event) map[string]any {
	return map[string]any{"event": newView(e, s.raw)}
}

func (c *compiled) holds(in map[string]any) (holds bool, err error) {
	defer recoverInto(&err)
	v, _, err := c.when.Eval(in)
	if err != nil {
		return false, fmt.Errorf("when: %w", err)
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, fmt.Errorf("when: is a %s, not a truth value", v.Type().TypeName())
	}
	return bool(b), nil
}

// apply adds what a rule makes of an event, or nothing of it if a part fails.
func (o *Outcome) apply(c *compiled, in map[string]any, at time.Time) error {
	a := Applied{ID: c.ID, Cooldown: time.Duration(c.Cooldown) * time.Second, Slip: c.Slip, Egress: c.Egress}
	for i, n := range c.Annotations {
		a.Annotations = append(a.Annotations, event.Annotation{
			ID: c.partID(i), Kind: n.Kind, Source: a.Step(), CreatedAt: at, Label: n.Label, Value: n.Value, Score: n.Score,
		})
		payload := map[string]string{}
		if n.Text != "" {
			payload["text"] = n.Text
		}
		if n.Name != "" {
			payload["name"] = n.Name
		}
		if len(payload) > 0 {
			a.Annotations[i].Payload = event.Raw(payload)
		}
	}
	for i, n := range c.Candidates {
		text, err := fill(c.texts[i], in)
		if err != nil {
			return fmt.Errorf("candidates.%d.text: %w", i, err)
		}
		if answer.Unquote(text) == "" {
			continue // says nothing for this event
		}
		priority := n.Priority
		if priority == nil {
			priority = &c.Priority
		}
		a.Candidates = append(a.Candidates, event.Candidate{
			ID: c.partID(i), Kind: cmp.Or(n.Kind, "text"), Source: a.Step(), CreatedAt: at, Status: event.CandidateProposed,
			Priority: priority, Confidence: n.Confidence, Text: text, Format: "plain", Metadata: c.candidateMetadata(i),
		})
	}
	if c.action != nil {
		done, err := c.action.fill(in)
		if err != nil {
			return err
		}
		a.Action = &done
	}
	if o.size+a.size() > maxTotal {
		return fmt.Errorf("the rules before it left less than the %d bytes that it adds", a.size())
	}
	if a.isRelay() && o.addresses+len(a.Egress.To) > maxRelayAddresses {
		return fmt.Errorf("the rules before it relay to so many places that its %d would be more than %d", len(a.Egress.To), maxRelayAddresses)
	}
	if a.isRelay() {
		o.addresses += len(a.Egress.To)
	}
	o.size += a.size()
	o.Applied = append(o.Applied, a)
	return nil
}

// size is roughly how many bytes a rule adds to an event's written form.
func (a Applied) size() (n int) {
	for _, x := range a.Annotations {
		n += len(x.Kind) + len(x.Value) + len(x.Label) + len(x.Payload)
	}
	for _, c := range a.Candidates {
		n += len(c.Kind) + len(c.Text) + len(c.Metadata)
	}
	if a.Egress != nil {
		for _, p := range a.Egress.To {
			n += len(p.Destination) + len(p.Channel)
		}
	}
	return n
}

// partID is the id of the i-th annotation or candidate of a rule, always the same.
func (c *compiled) partID(i int) string { return "rule:" + c.ID + "#" + strconv.Itoa(i) }

// fill makes a text of a template, at most maxText characters long.
func fill(pieces []piece, in map[string]any) (text string, err error) {
	defer recoverInto(&err)
	var b strings.Builder
	for _, p := range pieces {
		if p.program == nil {
			b.WriteString(p.literal)
			continue
		}
		v, _, err := p.program.Eval(in)
		if err != nil {
			return "", err
		}
		s, err := toText(v)
		if err != nil {
			return "", err
		}
		b.WriteString(s)
		if b.Len() > maxText*utf8.UTFMax {
			break // enough for any maxText characters
		}
	}
	return clip(b.String(), maxText), nil
}

// toText gives a value as a text: null as nothing, numbers and times as CEL's string() writes them.
func toText(v ref.Val) (string, error) {
	if v.Type() == types.NullType {
		return "", nil
	}
	s, ok := v.ConvertToType(types.StringType).(types.String)
	if !ok {
		return "", errors.New("a " + v.Type().TypeName() + " can't be written into a text")
	}
	return string(s), nil
}

func clip(s string, characters int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	for i := range s {
		if characters == 0 {
			return s[:i]
		}
		characters--
	}
	return s
}

// AddTo adds what the rules made to an event: in the place of what has the same id, if the event went through the same
// rule before. A step that is pending already is not added again; the first rule that asks for one decides, if it says
// so, where the step's answer goes.
func (o Outcome) AddTo(e *event.Event) {
	for _, a := range o.Applied {
		for _, n := range a.Annotations {
			e.Annotations = put(e.Annotations, n, func(x event.Annotation) bool { return x.ID == n.ID })
		}
		for _, c := range a.ownCandidates() {
			e.Candidates = put(e.Candidates, c, func(x event.Candidate) bool { return x.ID == c.ID })
		}
		for _, id := range a.Slip {
			if slices.ContainsFunc(e.RoutingSlip, func(s event.Step) bool { return s.ID == id && s.Status == event.StepPending }) {
				continue
			}
			e.RoutingSlip = append(e.RoutingSlip, event.Step{ID: id, V: "1", Status: event.StepPending, NextTopic: string(topology.Enriched)})
			a.Direct(e)
		}
	}
}

func put[T any](list []T, v T, same func(T) bool) []T {
	if i := slices.IndexFunc(list, same); i >= 0 {
		list[i] = v
		return list
	}
	return append(list, v)
}

// Answer finds the rule whose own answer is the best, and reports whether there is one. A relay is none.
func (o Outcome) Answer() (Applied, bool) {
	var all []event.Candidate
	var owner []int
	for i, a := range o.Applied {
		for _, c := range a.ownCandidates() {
			all, owner = append(all, c), append(owner, i)
		}
	}
	best := answer.Best(all)
	if best < 0 {
		return Applied{}, false
	}
	return o.Applied[owner[best]], true
}

// Direct sends the answer that an event becomes where the rule says. An answer to everybody in the channel names no
// user; an event without a channel is answered to who asked.
func (a Applied) Direct(e *event.Event) {
	if a.Egress == nil {
		return
	}
	var g event.Egress
	if e.Egress != nil {
		g = *e.Egress
	}
	g.Destination = cmp.Or(a.Egress.Destination, g.Destination)
	g.Type = cmp.Or(a.Egress.Type, g.Type)
	if len(a.Egress.To) > 0 {
		g.Destination, g.Type, g.To = "", event.EgressChat, a.addresses(e)
	}
	e.Egress = &g
	if a.Egress.Audience == AudienceChannel && e.Channel != "" {
		e.UserID = ""
	}
}
