package event

import (
	"bytes"
	"slices"
	"strconv"
)

// ReplaceHalfCharacters replaces each half of a surrogate pair in a JSON text by U+FFFD, the replacement character.
// RFC 8259, section 8.2, permits an escape such as \ud83d without its other half. Programs that cut a text inside an emoji
// write such an escape, but no valid UTF-8 can express half a pair. The result has the same length as data. It is data
// itself if nothing changes, and otherwise a copy. For a text that is not JSON the result is arbitrary.
func ReplaceHalfCharacters(data []byte) []byte {
	copied := false
	for i := bytes.IndexByte(data, '\\'); i >= 0 && i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		unit, ok := escapedUnit(data[i:])
		switch {
		case !ok:
			i++ // the next character is escaped
		case isHigh(unit) && followedByLow(data[i+escapeLength:]):
			i += 2*escapeLength - 1
		case isHigh(unit), isLow(unit):
			if !copied {
				data, copied = slices.Clone(data), true
			}
			copy(data[i:], `\ufffd`)
			i += escapeLength - 1
		default:
			i += escapeLength - 1
		}
	}
	return data
}

// escapeLength is the length of an escape such as \ud83d.
const escapeLength = len(`\ufffd`)

// escapedUnit reads an escape \uXXXX at the beginning of a text.
func escapedUnit(data []byte) (unit uint64, ok bool) {
	if len(data) < escapeLength || data[0] != '\\' || data[1] != 'u' {
		return 0, false
	}
	unit, err := strconv.ParseUint(string(data[2:escapeLength]), 16, 16)
	return unit, err == nil
}

func followedByLow(data []byte) bool {
	unit, ok := escapedUnit(data)
	return ok && isLow(unit)
}

// isHigh and isLow report the first and the second half of a pair (https://www.rfc-editor.org/rfc/rfc2781#section-2).
func isHigh(unit uint64) bool { return unit >= 0xd800 && unit <= 0xdbff }
func isLow(unit uint64) bool  { return unit >= 0xdc00 && unit <= 0xdfff }
