"""Small episodes that can happen on the way in any embedded story, as templates of `grammar.py`.

Together they hold, in their grammatical form, the constructions that the pairs of `paradigms.py` test.
"""

SCENES = {
    "accident": 3,
    "counting": 1,
    "ever": 1,
    "habit": 4,
    "mirror": 1,
    "mishap": 3,
    "nap": 1,
    "quantity": 1,
    "said": 3,
    "seeming": 1,
    "talk": 3,
    "task": 1,
    "there": 1,
    "these": 3,
    "too": 1,
    "what": 1,
    "whose": 1,
}
"""The rules that a scene is written by, with their weights."""

SCENE_RULES = """\
habit:
- {Hero} likes {thing.p}, and {friend} loves {food.p}.
- Every day, {hero} {act.s} in the {home}.
- {Hero} often {act.s} near the {spot}, and the {pet.p} {act2.p} there too.
- Every {day}, the {being.*} {act.*} near the {spot}.
- In the {home}, the {beast.*} {act.*} and the {beast2.~} {act2.~}.
- The {being.*} in the village {help.*} {hero}.
- The {being.*} {like.*} the {color} {thing.?}.
- The {being.*} near the {spot} {is.*} {mood}, and {hero} {is.s} {mood2} too.
- The {being.*} always {has.*} {food.p}, but the {being2.~} never {has.~} {food2.p}.
- {Hero} and {friend} always {act.p} in the {home}. {Hero}'s {elder} {act2.s} there too.
- The {kin.*} of the {being.?} {like.*} the {thing.?}.
- The {kin.*} of the {being.?} {is.*} {mood}.
- The {kin.*} of the {being.?} {act.*} in the {place}.
- The {being.*} that {help.past} the {being2.?} {like.*} the {thing.?}.
- The {being.*} that {help.past} the {being2.?} {is.*} {mood}.
- The {being.*} that {help.past} {hero} {act.*} in the {place}.

walk:
- {Hero} and {friend} walked to the {place}.
- On the way, {hero} stopped near the {spot}.
- After that, they went to the {place} together.
- Soon, {friend} came along.
- They sat under a tree and rested.
- {Hero} ate a {food}, and {friend} ate a {food2}.
- {Hero} {act.past} in the {place}, and {friend} {act2.past} too.
- The {he_person} that they met was by himself.
- The {she_person} that they met was by herself.
- Then they heard somebody behind the {spot}.
- It was a {sunny} day.

mirror:
- {Hero} looked into the {water} and saw {hero.himself}. "Look, {friend}!" said {hero}. {Friend} looked and
  saw {friend.himself} too.
- {Friend} looked at {friend.himself} in the mirror. {Friend.he} {hurt.past} {friend.himself} and smiled.
- {Hero} and {friend} were wet, so they {hurt.past} themselves {softly}.

accident:
- {Hero} ran too fast and hurt {hero.himself}. "Are you okay?" asked {friend}.
- {Hero} {hurt.past} {hero.himself} behind the {spot}. {Friend} {hurt.past} {friend.himself} too.
- {Friend} {hurt.past} {friend.himself} near the {spot}. {Hero} {hurt2.past} {hero.himself} {softly}.
- The {he_person.s} {hurt.past} himself, and the {she_person.s} {hurt.past} herself.
- The {she_person.s} {hurt.past} herself behind the {spot}, and the {he_person.p} {hurt2.past} themselves.
- They saw {a.*} {beast.*}. The {beast.*} {hurt.past} {itself.*} {softly}.
- The {beast.*} {hurt.past} {itself.*} near the {spot}, and {hero} {hurt2.past} {hero.himself}.
- The {being.p} {hurt.past} themselves with a {color} blanket.
- The {he_person.s} was by himself. He {hurt.past} himself {softly}.
- The {she_person.s} was by herself. She {hurt.past} herself {softly}.

these:
- "I like {this.*} {thing.*}," said {friend}. "Do you like {that.~} {thing2.~}?"
- "Look at {that.*} {color} {thing.*}!" said {hero}. "{Is.*} {it.*} for me?"
- {Hero} {count.past} {this.*} {color} {thing.*}, and {friend} {count2.past} {that.~} {thing2.~}.
- {Friend} {count.past} {that.*} {quality} {thing.*}. {Hero} {count2.past} {this.~} {color} {odd_thing.~}.
- {Hero} {count.past} {this.*} {odd_thing.*} {softly}. {Friend} wanted {that.~} {odd_thing2.~}.
- "Who {help.past} {that.*} {odd_creature.*}?" asked {hero}. "{This.*} {being.*} did," said {friend}.
- {Friend} {help.past} {this.*} {mood} {odd_creature.*} near the {spot}.

mishap:
- {Friend} {break.past} the {keepable}. {Friend.he} had {break2.part} a {keepable2} before.
- The {being.*} {break.past} the {keepable}, and {hero} {break2.past} the {keepable2}.
- The {quality} {keepable} was {break.part} by {a.*} {beast.*}. "Who has {break.part} it?" asked {hero}.
- A {torn} {keepable} was under the {hideout}. {Hero} looked at the {torn2} {keepable2.?}.
- "I have {break.part} your {keepable}," said {friend}. "The {torn} {keepable2.*} {is.*} mine."
- It was so cold that the {water} froze. {Hero} saw the frozen {water} and the {torn} {keepable.p}.

ever:
- {Hero} had not ever {find.part} a {thing} before. {Friend} had often {find.part} {thing.p}.
- "Have you ever seen a {beast}?" asked {hero}. "No, I have not ever seen one," said {friend}.
- Had {hero} ever {find.part} a {thing}? No, {hero.he} had not. {Hero.he} had really {find.part} a {thing2}.
- "Has {hero} ever {help.part} the {being.?}?" asked {friend}. "{Hero} has really {help.part} the {being2},"
  said the {being3}.
- The {being.*} had not ever {help.part} the {being2.?}. Nobody had ever {help.part} them.
- "Have the {being.p} ever {find.part} the {thing}?" asked {hero}. "They have now {find.part} it," said
  {friend}.

nap:
- {Hero} {sleep.past} near the {spot}, and {friend} {sleep2.past} too.
- The {being.*} {sleep.past} {softly}. {Hero} {find.past} a {thing} and {friend} {sleep2.past}.
- {Friend} {sleep.past} {softly} under the {hideout}. {Hero} {find.past} the {thing.?}.
- The {being.*} {find.past} the {color} {thing.?} and {sleep.past} behind the {spot}.

counting:
- {Hero} {count.past} one {color} {thing}, and {friend} {count.past} {several}.
- {Friend} {count.past} one {quality} {thing}, and the {being} {count.past} {several}. They were happy.
- The {being} {count.past} {number} {thing.p}, but {hero} {count2.past} only one {color} {thing}.

too:
- {Hero} {find.past} the {thing}, and {friend} did too.
- The {being.?} {find.past} the {thing}, and {hero} did too.
- {Friend} {act.past} in the {place}, and the {being.*} did too.
- {Friend} {count.past} the {thing}, but {hero} did not.

there:
- There {was.*} {a.*} {beast.*} in the {place}. "Hello," said {hero}.
- "There {is.*} {one.*} {thing.*} on the {hideout}," said {friend}. {Hero} looked.
- There were {several} {thing.p} near the {spot}. Every {thing.s} was {color}.
- Each {being.s} had a {thing}. There {was.*} {a.*} {thing2.*} behind the {spot} too.
- All {being.p} like {food.p}, and most {beast.p} like {food2.p}.

quantity:
- The {being.s} {count.past} at least {number} {thing.p}. No {being2.s} {count.past} more than {number2}
  {thing2.p}.
- No {being.s} {count.past} more than {number} {thing.p}, but {hero} {count.past} at least {number2}.
- {Hero} {count.past} at least {number} {color} {thing.p}. "The {being.s} {count.past} more than {number2},"
  said {friend}.

what:
- {Hero} {know.past} what {friend} had {find.part}. {Friend} {know2.past} that {hero} had {find2.part} the
  {thing}.
- {Friend} {know.past} that {hero} {find.past} the {color} {thing}.
- The {being.*} {know.past} what {hero} {find.past}, and {friend} {know2.past} it too.
- {Hero} {know.past} that the {being.*} {find.past} the {thing.?}. {Friend} {know2.past} what they
  {find.past}.
- "I know what the {being.*} {find.past}," said {friend}. {Hero} {know.past} that {friend} {find2.past} {a.*}
  {thing.*}.

said:
- {Hero} said that {friend} {help.past} {hero.him}. {Friend} said that {hero} {help2.past} {friend.him}.
- {Friend} said that {friend.he} was {mood}. {Hero} said that the {she_person} {help.past} {hero.him}.
- {Hero} said that {friend} {hurt.past} {friend.himself}. {Friend} said that the {he_person} {help.past}
  {friend.him}.
- The {she_person} that {help.past} {name} {hurt.past} herself, and {hero} {hurt2.past} {hero.himself}.
- The {he_person} that {help.past} {name} {hurt.past} himself, and {friend} {hurt2.past} {friend.himself}.
- The {she_person} that {help.past} the {person} {hurt.past} herself {softly}. "Oh no!" said {hero}.
- The {he_person} that {help.past} the {person} {hurt.past} himself near the {spot}.

seeming:
- There {seemed} to be {a.*} {beast.*} in the {place}. {Hero} {tried} to be {calm}.
- {Friend} {tried} to be {calm}, and {hero} {tried2} to find the {thing}. There {seemed} to be {a.*}
  {thing2.*} behind the {spot}.
- The {being.*} {tried} to be {calm}. There {seemed} to be {several} {thing.p} under the {hideout}.

task:
- The {color} {thing.*} {was.*} {easy} to {find}. {Hero} was {sure} to {find} {thing2.p}.
- {Friend} was {sure} to {find} the {thing}. "It is {easy} to {find}," {friend.he} said.
- The {thing.*} {was.*} {easy} to {find}, but the {being.*} {was.*} {sure} to {find2} the {thing2.?}.

whose:
- "Whose {thing.?} did you {find}?" asked {friend}. "I have {find.part} the {thing2} of my {kin}," said
  {hero}.
- Whose {keepable.?} did {friend} {find}? {Hero} did not know.
- "Whose {food.?} did the {being.*} {find}?" asked {hero}. "Mine!" said {friend}.
- "What did {hero} and {friend} {find}?" asked the {being.?}. They had {find.part} a {thing}.
- What did the {being.?} and the {being2.?} {find}? {Hero} {tried} to see.
- What did {hero} and the {being.?} {find}? They did not say.

talk:
- "Hello, {friend}," said {hero}. "The {being.*} {is.*} {mood} today." "Yes, and the {being2.~} {is.~}
  {mood2}," said {friend}.
- "Do the {being.p} {like} {food.p}?" asked {hero}. "Yes, but the {being2.s} {like2.s} {food2.p}," said
  {friend}.
- "The {being.*} in the {place} {like.*} my {thing}," said {friend}. {Hero} laughed.
- "Look! The {being.*} {is.*} {act.ing} in the {place}," said {friend}. "Yes, and the {being2.~} {is.~}
  {act2.ing}," said {hero}.
- "Does the {being.s} {like} you?" asked {friend}. "I think so," said {hero}. "The {being.s} {like2.s} us."
- "My {kin.*} {act.*} in the {place}," said {hero}. "My {kin2.~} {act2.~} near the {spot}," said {friend}.
- "Please help me," said the {being}. "My {thing} is {torn}." {Hero} and {friend} helped {softly}.
"""
