"""The seeded story generator: short tales with a cast, a plot, scenes and an ending.

Story i is a pure function of (seed, split, i), so that a longer list begins with the shorter one. The text is
the workbench's own, needs no network, and substitutes for TinyStories (Eldan & Li 2023). The scenes contain,
in grammatical form, the constructions that the embedded minimal pairs test.
"""

import random
import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from workbench.data.embedded.grammar import Grammar, Lexeme, build_classes, finish, read_rules
from workbench.errors import DataError
from workbench.stats import derive

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
"""Rules for scenes, with their weights."""

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


# What happens in the embedded stories: openings, plots and endings, as templates of `grammar.py`.


ROLES = {
    "hero": "name",
    "friend": "name",
    "elder": "elder",
    "pet": "animal",
    "prize": "toy",
    "home": "place",
    "shade": "color",
    "dish": "baked",
    "skill": "skill",
    "built": "built",
}
"""The cast, drawn once a story, with the lexeme class of each role."""

PLOT_RULES = """\
opening:
- Once upon a time, there was a {size} {hero.boy} named {hero}. {Hero.he} lived with {hero.his} {elder} in a
  {color} house near the {spot}.
- Once upon a time, in a {size} village, there lived a {trait} {hero.boy} named {hero}. {Hero.he} had a {pet}
  and a {shade} {prize}.
- {Hero} was a {trait} {hero.boy}. {Hero.his} best friend was {friend}. {Hero} and {friend} played in the
  {home} every day.
- There was once a {quality} house near the {spot}. A {size} {hero.boy} named {hero} lived there with
  {hero.his} {elder}.
- One {sunny} morning, {hero} woke up early. {Hero.his} {elder} was in the kitchen, and {hero.his} {pet} was
  under the {hideout}.
- Long ago, there was a {trait} {hero.boy} named {hero} who loved {pet.p}. {Hero} had a friend named {friend}
  who loved {thing.p}.
- {Hero} and {friend} were good friends. {Hero} had a {shade} {prize}, and {friend} had a {color} {wearable}.

time:
- One day
- One {sunny} day
- One morning
- One {sunny} morning
- One afternoon
- One night

lost_trouble:
- {time}, {hero} lost {hero.his} {shade} {prize}. {Hero.he} looked in the {place} and near the {spot}, but
  {hero.he} could not find it.
- {time}, {hero}'s {shade} {prize} was gone. {Hero} was very {upset}. "Where is my {prize}?" asked {hero}.

lost_turn:
- Then {friend} came with a big smile. "I found your {prize}," said {friend}. "It was under the {hideout}."
- At last, {hero} looked under the {hideout}. There it was! The {shade} {prize} was there, and a {pet} was
  asleep beside it.

gift_trouble:
- {time}, it was {friend}'s birthday. {Hero} wanted to give {friend} a {prize}, but {hero.he} did not have any
  money.
- {time}, {hero} wanted to make a gift for {hero.his} {elder}. "What does {elder.he} like?" {hero.he} asked
  {hero.himself}.

gift_turn:
- So {hero} made a {shade} {prize} out of paper. {Friend} opened the box and smiled. "It is the best gift
  ever!" said {friend}.
- In the end, {hero} picked {number} {color} flowers and put them in a {tool}. {Hero.his} {elder} loved them.

hurt_trouble:
- {time}, {hero} saw a {size} {pet} near the {spot}. The {pet} was hurt, and it could not walk. "Poor {pet},"
  said {hero}.
- {time}, a {size} {pet} fell into the {water}. It was wet and cold. {Hero} heard it cry and ran to help.

hurt_turn:
- {Hero} gave the {pet} some water and {a.p} {dish.p}. Soon the {pet} could walk again. It looked at {hero}
  and was not {upset}.
- {Hero} and {friend} took the {pet} to a doctor. The doctor helped it. "Your {pet} will be well soon," said
  the doctor.

broken_trouble:
- {time}, {friend} dropped {hero}'s {prize}, and it broke. {Hero} was {upset}. {Friend} hid the broken {prize}
  under the {hideout}.
- {time}, {hero} broke {hero.his} {elder}'s {shade} {tool}. {Hero} was {upset}. "What will {elder.he} say?"
  thought {hero}.

broken_turn:
- "I am sorry," said {friend}. "I will help you fix it." {Hero} and {friend} worked all day, and in the end it
  was as good as new.
- {Hero} told {hero.his} {elder} what had happened. {Elder.he} was not angry. "I am glad that you told me,"
  said {hero}'s {elder}.

share_trouble:
- {time}, {hero} had {number} {dish.p}, and {friend} had none. {Friend} was hungry and {upset}. "Can I have
  one?" asked {friend}.
- {time}, {hero}'s {elder} made a big {dish}. {Hero} wanted to eat it all, but {friend} was hungry too.

share_turn:
- {Hero} thought about {friend}. Then {hero.he} gave {friend} some of the food. They sat under a tree and ate
  together.
- "Sharing is good," said {hero}'s {elder}. So {hero} cut the {dish} with a knife and gave {friend} the bigger
  piece.

dark_trouble:
- {time}, {hero} and {friend} found a dark cave. {Hero} was scared. "Be brave," {hero.he} said to
  {hero.himself}.
- {time}, {hero} heard a loud noise in the dark. {Hero.he} hid under a blanket. "Who is there?" {hero.he}
  asked.

dark_turn:
- {Friend} lit a candle and held {hero}'s hand. In the light they saw that it was only a {size} {pet}. They
  laughed and laughed.
- {Hero} took a lamp and was brave. The noise was only a {pet} with a {dish}! {Hero} was not scared any more.

learn_trouble:
- {time}, {hero} wanted to learn to {skill}. {Hero.he} tried and tried, but it was too hard. "I cannot
  {skill}," said {hero}.
- {time}, {hero} saw {friend} {skill}. "I want to {skill} too," said {hero}. "Can you teach me?"

learn_turn:
- "Try again," said {friend}. "I will show you." {Hero} tried again every day, and in the end {hero.he} was
  proud of {hero.himself}.
- {Friend} taught {hero} how to {skill}. It took a long time, but {hero} did not stop. {Hero.his} {elder}
  clapped.

race_trouble:
- {time}, {hero} and {friend} had a race to the {spot}. {Hero} ran fast, but {friend} ran faster.
- {time}, there was a big race in the village. {Hero} wanted to win a {shade} {prize}. All the children came
  to the {home}.

race_turn:
- Then {friend} fell down. {Hero} stopped and helped {friend.him}. They walked to the end of the race hand in
  hand.
- {Hero} did not win the race, but {hero.he} was not sad. "You ran well," said {friend}. "I am proud of you."

build_trouble:
- {time}, {hero} wanted to build a {built} in the {home}. {Hero.he} needed {number} {natural.p} and many
  sticks.
- {time}, {hero} and {friend} built a {built} with boxes. Then the wind came and blew it down. {Hero} was
  {upset}.

build_turn:
- They built the {built} again with rocks and wood. This time it was strong. They painted it {shade} and
  played inside.
- Everyone came to help. The {pet.p} brought leaves, and {friend} brought a rope. By night the {built} was
  done.

storm_trouble:
- {time}, dark clouds filled the sky, and it began to rain. {Hero} and {friend} were far from home.
- {time}, a storm came. The wind blew {hero}'s {wearable} away, and {hero.his} {pet} was lost in the rain.

storm_turn:
- They ran to an old barn and waited. When the rain stopped, the sun came out, and there was a rainbow over
  the {home}.
- {Hero}'s {elder} came with a lamp. "There you are!" {elder.he} said. {Elder.he} gave {hero} a warm blanket
  and hot milk.

grow_trouble:
- {time}, {hero} found a {size} seed. {Hero.he} put it in the ground and gave it water every day, but nothing
  grew.
- {time}, {hero} and {friend} planted {number} seeds in the {home}. A {pet} came and ate them. {Hero} was
  {upset}.

grow_turn:
- Then one day a {size} leaf came up. Weeks passed, and a {shade} flower grew. "Look!" said {hero}. "It is so
  pretty!"
- {Friend} gave {hero} one more seed. They waited and waited. In summer, a big tree with many leaves stood
  there.

thief_trouble:
- {time}, {hero}'s {elder} baked a {dish} and put it on the table. When {hero} came back, the {dish} was gone!
- {time}, a {pet} stole {friend}'s {wearable} and ran into the {home}. "Stop!" cried {friend}.

thief_turn:
- {Hero} saw a {pet} behind the {spot}. It had a {dish} in its mouth. It was only hungry, so {hero} was not
  angry.
- They followed the {pet} to its nest. It had {number} babies, and they were cold. {Friend} let them keep it.

letter_trouble:
- {time}, {hero} got a letter. It said, "Come to the {spot} and bring a {tool}." {Hero} did not know who had
  written it.
- {time}, {hero} found an old map in a {tool}. It showed a road to the {home}. "Let us go and see," said
  {friend}.

letter_turn:
- It was {friend}! {Friend.he} had hidden a {shade} {prize} there. "Surprise!" said {friend}. "It is a gift
  for you."
- At the end of the road they found a box. In the box there was a {shade} {prize} and {number} gold coins.

visit_trouble:
- {time}, {hero} went to see {hero.his} {elder} in the {home}. {Hero.he} took a {dish} with {hero.him}, but
  the road was long.
- {time}, {friend} went to a new school. {Friend.he} did not know anybody there and was {upset}. {Hero} felt
  sorry for {friend.him}.

visit_turn:
- At last, {hero} saw the door. {Hero.his} {elder} gave {hero.him} a hug. They ate the {dish} and told each
  other stories.
- "Do you want to play with us?" asked {hero}. {Friend} smiled and nodded. They played with {hero}'s {prize}
  until night.

dream_trouble:
- {time}, {hero} had a strange dream. In the dream, a {size} {pet} could talk. "Please take me to the {home},"
  it said.
- {time}, {hero} could not sleep. The moon was bright, and the stars shone over the {home}.

dream_turn:
- Then {hero} opened {hero.his} eyes. It was morning, and the {pet} sat on {hero.his} bed. Was it only a
  dream? {Hero} smiled to {hero.himself}.
- {Hero}'s {elder} sang an old song. {Hero} closed {hero.his} eyes and counted the stars until {hero.he}
  slept.

chore_trouble:
- {time}, {hero}'s room was a mess. "Clean your room before you play," said {hero.his} {elder}. {Hero} was
  {upset}.
- {time}, {hero}'s {elder} was sick and stayed in bed. {Hero} had to feed the {pet.p} and cook dinner all by
  {hero.himself}.

chore_turn:
- {Friend} held the broom, and {hero} put every {prize} on a shelf. Work was easy with a friend, and they even
  sang.
- {Hero} made hot soup and bread. "You are a big help," said {hero}'s {elder}, and soon {elder.he} felt
  better.

snow_trouble:
- {time}, snow covered the ground, and the {water} was full of ice. {Hero} had no gloves, and {hero.his}
  fingers were cold.
- {time}, {hero} and {friend} wanted to make a snowman, but they had no carrot for its nose.

snow_turn:
- {Hero} and {friend} rolled three giant balls of snow and gave the snowman a {wearable}. "He looks like
  grandpa!" said {friend}.
- {Friend} lent {hero} a pair of mittens. They rode down the {sunny} hill until the sun went behind the
  clouds.

music_trouble:
- {time}, {hero} heard music from a window. An old man played a fiddle. "I wish I could do that," said {hero}.
- {time}, the children put on a show in the {home}. {Hero} had to sing all by {hero.himself}, and {hero.his}
  voice shook.

music_turn:
- {Hero} practiced every evening. First it sounded bad, but at last it sounded sweet, and everyone danced.
- {Friend} stood up and sang along. {Hero}'s voice grew loud and clear, and the whole crowd clapped and
  cheered.

camp_trouble:
- {time}, {hero} and {friend} slept outside in a tent. Something made a strange sound, and {hero}'s heart beat
  fast.
- {time}, {hero} followed a path into the woods. Every tree looked the same, and {hero.he} was there by
  {hero.himself}.

camp_turn:
- {Hero} looked out with {hero.his} flashlight. A {size} {pet} was eating their {dish.p}! {Friend} laughed and
  gave it another.
- {Hero} climbed to the top of a tree and saw smoke. "That is our fire!" {hero.he} shouted. {Hero.he} ran all
  the way back.

shop_trouble:
- {time}, {hero} saw a {shade} {prize} in a shop window. It cost {number} coins, and {hero.his} pocket was
  empty.
- {time}, {hero}'s {elder} sent {hero.him} to buy {dish.p} and butter. {Hero} took the money and a basket.

shop_turn:
- {Hero} sold juice to thirsty neighbors all week. Finally {hero.he} could buy it for {hero.himself}, and
  {friend} went to the shop with {hero.him}.
- The old lady in the shop smiled at {hero}. "You are so polite," she said, and she put a piece of chocolate
  in the basket.

ending:
- {Hero} hugged {friend}. "Thank you," said {hero}. From that day on, {hero} and {friend} were best friends.
- That night, {hero} told {hero.his} {elder} about {friend} and the {pet}. {Hero.he} fell asleep with a smile.
- {Hero} was happy and proud of {hero.himself}. {Hero.he} learned that it is good to be kind, and {hero.his}
  {elder} was proud of {hero.him}.
- {Friend} and {hero} went home together. They ate {dish.p} and laughed about the {pet}. {Friend} was proud of
  {friend.himself}. The end.
- {Hero} and {friend} still play in the {home} today, and {hero} still has the {shade} {prize}.
- "What a day!" said {hero}'s {elder}. {Hero} smiled at {elder.him}. {Hero.he} knew that {friend} was a true
  friend.
- And {hero} never forgot what {friend} had done for {hero.him}. They lived happily ever after.
"""
"""Each plot has a rule `<plot>_trouble` and a rule `<plot>_turn`."""

PLOTS = tuple(re.findall(r"^(\w+)_trouble:$", PLOT_RULES, re.MULTILINE))


SPLITS = ("train", "validation")
_SCENES = tuple(name for name, weight in SCENES.items() for _ in range(weight))


@cache
def grammar() -> Grammar:
    """Return the compiled grammar that stories and minimal pairs share."""
    return Grammar(build_classes(), read_rules(PLOT_RULES + SCENE_RULES), ROLES)


def stories(n: int, seed: int = 0, split: str = "train") -> list[str]:
    """Return the first `n` stories of a seed; `stories(10)[:5] == stories(5)`.

    Args:
        n: number of stories.
        seed: of the stories.
        split: "train" or "validation"; each has its own stream of random numbers.

    Raises:
        DataError: `n` is negative or `split` has another name.
    """
    if n < 0 or split not in SPLITS:
        raise DataError(
            f"stories(n={n}, split={split!r}): n must be 0 or more and split one of {', '.join(SPLITS)}."
        )
    return [story(index, seed, split) for index in range(n)]


def split_stories(n_train: int, n_validation: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return training and validation stories; a validation story that is also a training story is skipped."""
    train = stories(n_train, seed)
    seen = set(train)
    validation: list[str] = []
    index = 0
    while len(validation) < n_validation:
        text = story(index, seed, "validation")
        index += 1
        if text not in seen:
            validation.append(text)
    return train, validation


def story(index: int, seed: int = 0, split: str = "train") -> str:
    """Return story `index` of (seed, split): mostly 80 to 160 words, with a newline between paragraphs."""
    return finish(compose(grammar(), index, seed, split).text)


class Composed(NamedTuple):
    """A story before `finish`, with its plot and cast."""

    text: str
    plot: str
    """One of `PLOTS`."""
    cast: dict[str, Lexeme]
    """Lexeme of each role in `ROLES`."""


def compose(grammar: Grammar, index: int, seed: int = 0, split: str = "train") -> Composed:
    """Write a story with `grammar()`, or with a grammar with the same classes in the same order."""
    draw = random.Random(derive(seed, f"embedded stories {split}", index)).random
    cast: dict[str, Lexeme] = {}
    for role, kind in ROLES.items():
        cast[role] = grammar.pick(kind, draw, tuple(cast.values()))

    def choose(names: Sequence[str]) -> str:
        return names[int(draw() * len(names))]

    def write(rule: str) -> str:
        return grammar.write_rule(rule, draw, cast)

    plot = choose(PLOTS)
    paragraphs = [write(choose(_SCENES))] if draw() < 0.4 else []
    paragraphs += [write("opening") + " " + write("habit"), write(f"{plot}_trouble")]
    for _ in range(1 + int(draw() * 4)):
        walk = write("walk") + " " if draw() < 0.4 else ""
        paragraphs.append(walk + write(choose(_SCENES)))
    paragraphs += [write(f"{plot}_turn"), write("ending")]
    return Composed("\n".join(paragraphs), plot, cast)
