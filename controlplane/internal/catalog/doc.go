// Package catalog judges offerings: what is written in one, before it can be published, and what somebody asks of one. It is
// pure, and for the proposer only: JSON Schema and YAML are interpreted here and never in the state machine, which gets the
// result.
//
// # What is filled in never becomes code
//
// A form takes a closed part of JSON Schema: a flat object of texts, whole numbers, yes or no, and lists of texts; no
// references, so nothing is ever loaded and nothing multiplies. Its patterns hold for the whole of a text, and no text holds
// a control character, a line break among them. Software is parsed as YAML first and only then are values put in: into the
// content of files and into single arguments of commands that are lists. There is no place where a value is read as YAML or by
// a shell. A field that is put into software says what it takes: by a pattern, a format or a list of words.
//
// # What software may say
//
// The keys are a closed list, so that no fragment takes over users, keys, network, name, or the line by which a guest says that
// it is usable. Commands run as root in the guest all the same: who may publish an offering is trusted with that.
package catalog
