package rule

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/cel-go/common/types"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
	"parley.internal/shared/moderation"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

// Outcome is the result of a set's rules for one event.
type Outcome struct {
	Applied       []Applied // in the order of the rules
	Failed        []Failure
	Evaluated     int // evaluated conditions, including failed ones
	OnCooldown    int // rules that hold, but whose cooldown is running
	RelaysDropped int // rules removed by DropRelays

	size      int // bytes added by all rules
	addresses int // number of relay addresses of all rules
}

// Applied holds the additions of one rule to an event.
type Applied struct {
	ID          string
	Cooldown    time.Duration // 0 for none
	Annotations []event.Annotation
	Candidates  []event.Candidate // only candidates with a text
	Slip        []string
	Egress      *store.RuleEgress  // nil for the event's origin
	Action      *moderation.Action // nil for none
}

// Step returns the step name of this rule's answer.
func (a Applied) Step() string { return "rule:" + a.ID }

// Evaluate returns the additions of the rules to an event, with at as their creation time. For each rule that holds and
// has a cooldown, onCooldown reports whether the cooldown is still running; such a rule adds nothing.
func (s *Set) Evaluate(e *event.Event, at time.Time, onCooldown func(id string) bool) Outcome {
	var o Outcome
	in := s.input(e)
	for _, c := range s.rules {
		o.Evaluated++
		holds, err := c.holds(in)
		if err == nil && holds && c.Cooldown > 0 && onCooldown(c.ID) {
			o.OnCooldown++
			continue
		}
		if err != nil {
			o.Failed = append(o.Failed, Failure{ID: c.ID, Err: err})
		} else if holds {
			o.apply(c, in, at)
		}
	}
	return o
}

// Repeat returns the additions of the rules with these ids to an event evaluated before. Conditions are not evaluated
// again, because their inputs, such as the user's roles or a cooldown, may have changed since.
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
		o.apply(c, in, at)
	}
	return o
}

func (s *Set) input(e *event.Event) *input { return &input{event: e, raw: s.raw} }

// holds evaluates the rule's condition.
func (c *compiled) holds(in *input) (holds bool, err error) {
	defer recoverInto(&err)
	v, err := c.when.eval(in)
	if err != nil {
		return false, fmt.Errorf("when: %w", err)
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, fmt.Errorf("when: is a %s, not a truth value", v.Type().TypeName())
	}
	return bool(b), nil
}

// apply adds the additions of a rule that holds to the outcome. If a part fails, it adds only the failure.
func (o *Outcome) apply(c *compiled, in *input, at time.Time) {
	a, err := c.additions(in, at)
	if err == nil {
		err = o.checkBounds(a)
	}
	if err != nil {
		o.Failed = append(o.Failed, Failure{ID: c.ID, Err: err, LostAction: c.action != nil})
		return
	}
	if a.isRelay() {
		o.addresses += len(a.Egress.To)
	}
	o.size += a.size()
	o.Applied = append(o.Applied, a)
}

// Held returns the ids of the rules to pass to [Set.Repeat]: the applied rules, and the rules with a lost action.
func (o Outcome) Held() []string {
	var ids []string
	for _, a := range o.Applied {
		ids = append(ids, a.ID)
	}
	for _, f := range o.Failed {
		if f.LostAction {
			ids = append(ids, f.ID)
		}
	}
	return ids
}

// additions makes the additions of a rule for an event.
func (c *compiled) additions(in *input, at time.Time) (Applied, error) {
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
		text, literal, err := fill(c.texts[i], in)
		if err != nil {
			return Applied{}, fmt.Errorf("candidates.%d.text: %w", i, err)
		}
		if strings.TrimSpace(text) == "" {
			continue // empty for this event
		}
		priority := n.Priority
		if priority == nil {
			priority = &c.Priority
		}
		a.Candidates = append(a.Candidates, event.Candidate{
			ID: c.partID(i), Kind: cmp.Or(n.Kind, "text"), Source: a.Step(), CreatedAt: at, Status: event.CandidateProposed,
			Priority: priority, Confidence: n.Confidence, Text: text, Format: "plain", Metadata: answer.TemplateMetadata(literal),
		})
	}
	if c.action != nil {
		done, err := c.action.fill(in)
		if err != nil {
			return Applied{}, err
		}
		a.Action = &done
	}
	return a, nil
}

// checkBounds checks the bounds of all additions together.
func (o *Outcome) checkBounds(a Applied) error {
	if o.size+a.size() > maxTotal {
		return fmt.Errorf("adds %d bytes: more than the earlier rules left of %d", a.size(), maxTotal)
	}
	if a.isRelay() && o.addresses+len(a.Egress.To) > maxRelayAddresses {
		return fmt.Errorf("relays to %d addresses: more than the earlier rules left of %d", len(a.Egress.To), maxRelayAddresses)
	}
	return nil
}

// size returns about the bytes that a rule adds to an encoded event.
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

// partID returns the stable id of the i-th annotation or candidate.
func (c *compiled) partID(i int) string { return "rule:" + c.ID + "#" + strconv.Itoa(i) }

// fill evaluates a template to a text of at most maxText characters. literal holds the spans of the text that stand in
// the template itself.
func fill(pieces []piece, in *input) (text string, literal []answer.Span, err error) {
	defer recoverInto(&err)
	var b strings.Builder
	for _, p := range pieces {
		from := b.Len()
		if p.program == nil {
			b.WriteString(strings.ToValidUTF8(p.literal, "\uFFFD"))
			literal = append(literal, answer.Span{from, b.Len()})
			continue
		}
		v, err := p.program.eval(in)
		if err != nil {
			return "", nil, err
		}
		s, err := toText(v)
		if err != nil {
			return "", nil, err
		}
		b.WriteString(strings.ToValidUTF8(s, "\uFFFD"))
		if b.Len() > maxText*utf8.UTFMax {
			break // enough bytes for maxText characters
		}
	}
	text = answer.TruncateCodePoints(b.String(), maxText) // every part is valid UTF-8
	for i := range literal {
		literal[i] = answer.Span{min(literal[i][0], len(text)), min(literal[i][1], len(text))}
	}
	return text, literal, nil
}

// AddTo adds the outcome to an event. An addition replaces an existing one with the same id, as left by an earlier pass
// of the same rule. A step already pending is not added again. The first rule to request the step also directs the
// step's answer, if the rule has an egress.
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

// put replaces the first entry for which same holds, or appends v.
func put[T any](list []T, v T, same func(T) bool) []T {
	if i := slices.IndexFunc(list, same); i >= 0 {
		list[i] = v
		return list
	}
	return append(list, v)
}

// Answer returns the rule with the best answer of its own, and reports whether a rule has one. Relays do not count.
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

// Direct sets the destination of an answer event as the rule's egress says. An answer to the channel's audience has no
// user id. Without a channel, the answer goes to the user.
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
	if a.Egress.Audience == audienceChannel && e.Channel != "" {
		e.UserID = ""
	}
}
