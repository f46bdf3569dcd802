// Package approval reads approval policies and says what they ask for: which policy decides on a request, which stages it has,
// who may decide in each, when each is due, and whether the request is approved without people. It is pure, and for the
// proposer only: expressions are evaluated here and never in the state machine, which gets the result and checks itself what
// must never be wrong.
//
// # What is doubtful is no approval
//
// An expression that fails (a price in another currency, a cost beyond the limit) fails the submission; it counts as neither
// true nor false. A person of whom it cannot be said whether they may decide may not. A policy of which no stage is left asks
// for nobody, and so is refused. Where no policy applies nothing can be asked for.
//
// # Expressions
//
// They are CEL over the fields of a PolicyCase, typed: a word that is misspelt is found when the policy is written. The words
// of grades, kinds and change types stand for themselves (SENSITIVE, CREATE, EMERGENCY); amount(request.monthly_cost, "KRW")
// is a price as a whole number. There are no loops but over what a case holds, and what an evaluation may cost is bounded, so
// a policy cannot hold a server up.
package approval
