package store

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The error values of the package. Compare with [errors.Is].
var (
	// ErrConflict means that a document has changed since the caller read it, and that [Store.PutUser] has written
	// nothing. The caller reads the document again and decides anew.
	ErrConflict = errors.New("document changed meanwhile")
	// ErrLinked means that [Store.Link] would replace an existing link, or make a chain of two links. The message says
	// what an operator has to do first.
	ErrLinked = errors.New("is linked already")
	// ErrNotLinked means that [Store.Unlink] was called for an id without a link.
	ErrNotLinked = errors.New("is not linked")
)

// IsConflict reports whether Firestore refused a conditional write because of an earlier write by another writer. The
// refused write changed nothing. The caller reads the document again and decides anew.
//
//	FailedPrecondition  the document's update time differs from the condition
//	AlreadyExists       a document to be created exists already
//	NotFound            a document to be updated was deleted
//	Aborted             another client's transaction holds a lock on the document
//
// A caller with a different meaning for a missing document checks for NotFound first.
// The codes are described at https://cloud.google.com/firestore/docs/understand-error-codes.
func IsConflict(err error) bool {
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.AlreadyExists, codes.NotFound, codes.Aborted:
		return true
	}
	return false
}
