package store

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// IsConflict reports whether Firestore refused a conditional write because another writer came first. The write changed
// nothing. The caller reads the document again and decides anew.
//
//	FailedPrecondition  the document has another update time than the condition names
//	AlreadyExists       a document that should be created exists
//	NotFound            a document that should exist was deleted
//	Aborted             a transaction of another client holds a lock on the document
//
// A caller for which a missing document means something else checks for NotFound first.
// The codes are described at https://cloud.google.com/firestore/docs/understand-error-codes.
func IsConflict(err error) bool {
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.AlreadyExists, codes.NotFound, codes.Aborted:
		return true
	}
	return false
}
