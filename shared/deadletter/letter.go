package deadletter

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"parley.internal/shared/event"
)

// Status is the progress of a dead letter.
type Status string

// A dead letter is open until an operator decides to redrive the message, redriving until the message is published again,
// and then redriven. If the message fails again, the dead letter is open again. A redrive that was interrupted before the
// end leaves the dead letter redriving: see [Store.Redrivable].
const (
	Open      Status = "open"
	Redriving Status = "redriving"
	Redriven  Status = "redriven"

	// Unfinished selects open and redriving dead letters in a [Filter]. No dead letter has this status.
	Unfinished Status = "unfinished"
)

// DeadLetter is a dead letter, the document deadletters/{id}.
type DeadLetter struct {
	ID            string            `firestore:"-"`
	Status        Status            `firestore:"status"`
	Reason        Reason            `firestore:"reason"`
	Message       string            `firestore:"message,omitempty"` // of the error
	Source        string            `firestore:"source"`            // the part of Parley that dead-lettered the message
	CorrelationID string            `firestore:"correlationId,omitempty"`
	OriginalType  string            `firestore:"originalType,omitempty"`
	LastStepID    string            `firestore:"lastStepId,omitempty"`
	SlipSummary   string            `firestore:"slipSummary,omitempty"` // "enrichment OK, personality ERROR"
	Preview       string            `firestore:"preview,omitempty"`     // the beginning of Data, for people
	Data          []byte            `firestore:"data,omitempty"`        // the whole message, unchanged; see Parts
	Parts         int               `firestore:"parts,omitempty"`       // number of documents with the data of a long message
	Attributes    map[string]string `firestore:"attributes,omitempty"`  // the message's original attributes
	Topic         string            `firestore:"topic,omitempty"`       // bare name of the message's topic; empty for a delivery
	Delivery      bool              `firestore:"delivery"`              // the message is the answer in the ledger entry with the same id
	Attempts      int               `firestore:"attempts"`              // 1, and 1 more for each redrive that failed
	At            time.Time         `firestore:"at"`                    // of the last failure
	FirstAt       time.Time         `firestore:"firstAt"`
	Redrives      []Redrive         `firestore:"redrives,omitempty"`
	ExpireAt      time.Time         `firestore:"expireAt"` // the collection's TTL field
}

// Part is a piece of a long message's data, the document deadletters/{id}/parts/{n}.
type Part struct {
	Data     []byte    `firestore:"data"`
	ExpireAt time.Time `firestore:"expireAt"` // the collection's TTL field
}

// Redrive is one decision to redrive a dead letter.
type Redrive struct {
	By     string    `firestore:"by"`
	At     time.Time `firestore:"at"`
	Failed bool      `firestore:"failed,omitempty"` // the message could not be published; the next redrive tries again
}

const (
	// maxPreview is the maximum length of a preview, in characters.
	maxPreview = 1000

	// partSize is the data of one part, in bytes. A document holds at most 1 MiB in all
	// (https://firebase.google.com/docs/firestore/quotas).
	partSize = 900 << 10

	// Retention is how long the store keeps a dead letter after the last failure.
	Retention = 30 * 24 * time.Hour
)

// describe fills in the fields that follow from the data. A reason missing in the table stays, because a newer revision
// may have announced it. Only a reason that is no code at all becomes [InvalidEvent].
func (l *DeadLetter) describe() {
	if !l.Reason.wellFormed() {
		l.Message = fmt.Sprintf("the announced reason %.64q is not a code: %s", string(l.Reason), l.Message)
		l.Reason = InvalidEvent
	}
	l.Preview = preview(l.Data)
	e, err := event.Decode(l.Data)
	if err != nil {
		l.CorrelationID = cmp.Or(l.CorrelationID, l.Attributes["correlationId"])
		l.OriginalType = cmp.Or(l.OriginalType, l.Attributes["type"])
		return
	}
	l.CorrelationID, l.OriginalType = e.CorrelationID, e.Type
	var steps []string
	for _, s := range e.RoutingSlip {
		steps = append(steps, s.ID+" "+s.Status)
		if s.Status != event.StepPending {
			l.LastStepID = s.ID
		}
	}
	l.SlipSummary = strings.Join(steps, ", ")
}

func preview(data []byte) string {
	text := strings.ToValidUTF8(string(data[:min(len(data), 4*maxPreview)]), "\uFFFD")
	n := 0
	for i := range text {
		if n == maxPreview {
			return text[:i]
		}
		n++
	}
	return text
}
