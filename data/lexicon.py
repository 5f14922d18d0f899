"""The words that the built-in stories choose among.

Each list is a choice that many places in the stories share. ``word*3`` is chosen three times as often as
``word``; entries of several words are told in full. No entry of a list begins another one.
"""

from __future__ import annotations

LISTS = {
    # Who.
    "girl": """Lily*2, Mia, Anna, Sue, Lucy, Emma, Zoe, Ella, Rosie, Molly, Nina, Clara, Ruby, Grace, Ivy,
        Holly, Sara, Jane, Amy, Kate""",
    "boy": """Tom*2, Ben*2, Max, Tim, Sam, Jack, Leo, Finn, Oscar, Hugo, Peter, Noah, Theo, Billy, Toby,
        Joe, Henry, Luke, Owen, Adam""",
    "pet": """cat*2, dog*2, puppy*2, kitten*2, rabbit, hamster, parrot, turtle, goat, pony, duck, hen, frog,
        hedgehog, mouse, goose, lamb, piglet, donkey, fox""",
    "friend": """Pip, Coco, Biscuit, Pepper, Muffin, Socks, Buttons, Honey, Rusty, Snowy, Misty, Patch,
        Ginger, Nibbles, Bubbles, Pebble, Ziggy, Cookie, Pumpkin, Maple, Fluffy, Spot, Dusty, Tiger""",
    "family": """mom*3, dad*3, grandma*2, grandpa*2, sister*2, brother*2, aunt, uncle, cousin, twin""",
    "helper": """farmer*2, baker*2, teacher, sailor, gardener, painter, doctor, fisherman, shopkeeper,
        librarian, neighbor, policeman, mailman, nurse, singer, tailor, carpenter, shepherd, miller, clown,
        king, queen, prince, princess, pirate, wizard, fairy, knight, cook, driver, juggler, captain""",
    "animal": """bird*2, butterfly*2, bee, squirrel, snail, ladybug, spider, crab, seagull, hare, beaver,
        mole, worm, caterpillar, dragonfly, robin, sparrow, swan, lizard, crow, otter, badger, moth, cricket,
        ant, toad, owl, eagle""",
    "animals": """birds*2, butterflies*2, bees, squirrels, snails, ladybugs, spiders, crabs, seagulls, hares,
        beavers, moles, worms, caterpillars, dragonflies, robins, sparrows, swans, lizards, crows, otters,
        badgers, moths, crickets, ants, toads, owls, eagles""",
    # What.
    "thing": """ball*2, kite*2, doll*2, drum, book, hat, scarf, robot, puzzle, whistle, lamp, basket,
        blanket, train, truck, wagon, teapot, mirror, ring, crown, necklace, watch, bell, flute, marble,
        balloon, bucket, shovel, umbrella, backpack, mitten, boot, key, coin, map, feather, shell, spoon,
        cup, toy""",
    "built": """house*2, tower*2, fort, treehouse, raft, sled, swing, slide, tunnel, rocket, kennel, cart,
        nest, maze, playhouse, birdhouse, windmill, cabin, ladder, stage, hut, wall, canoe, bridge""",
    "stuff": """wood*2, stones, sticks, mud, sand, boxes, leaves, bricks, paper, rope, straw, logs, branches, clay, snow, cloth, cardboard, tin, string, glue, nails, wool, ribbons, wax""",
    "food": """bread*2, cake*2, cookies*2, cheese, soup, apples, berries, honey, nuts, carrots, pancakes,
        grapes, pie, muffins, cherries, plums, peaches, noodles, rice, popcorn, jam, cupcakes, sandwiches,
        strawberries, pears, corn, beans, pudding, crackers, raisins, oranges, bananas, waffles, potatoes,
        peas, tomatoes""",
    "plant": """flowers*2, roses, tulips, daisies, sunflowers, violets, poppies, buttercups, dandelions,
        bluebells, ferns, lilies, orchids, thistles, clovers, mushrooms, acorns, pinecones, pebbles, feathers, stars, shells""",
    "fear": """the dark*2, thunder, deep water, high places, loud noises, big dogs, ghosts, monsters, storms,
        bees, shadows, lightning, snakes, bats, geese, the cellar""",
    "game": """tag*2, hide-and-seek*2, catch*2, chess, football, tennis, cards, pirates, hopscotch, marbles,
        dominoes, music, school, house, detective, baseball""",
    # Where and when.
    "place": """park*3, beach, forest, garden, farm, market, lake, river, meadow, library, school,
        playground, pond, zoo, village, castle, barn, bakery, field, hill, orchard, museum, harbor, station,
        cave, island, mountain, church, mill, town, valley, fair""",
    "indoors": """bed*2, table*2, chair, sofa, rug, cupboard, curtain, stairs, door, desk, piano, stove,
        shelf, pillow, clock, fireplace, sink, bathtub, wardrobe, mat""",
    "outdoors": """tree*2, bush*2, rock, log, fence, gate, bench, barrel, haystack, shed, tent, well, hedge,
        wheel, statue, boat, stump, fountain, mailbox, cottage""",
    "where": """under*2, behind*2, beside, near, by""",
    "weather": """sunny*3, rainy*2, windy*2, cloudy, snowy, foggy, warm, cold, cool, bright, quiet, hot,
        stormy, frosty, lovely, misty, gray, golden""",
    "time": "morning*3, day*3, afternoon*2, evening",
    "weekday": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday*2, Sunday*2",
    "soon": "Soon*2, Then*3, Later, Next, Suddenly*2, Finally, Afterwards",
    # How.
    "size": """little*3, small*2, tiny*2, big*2, huge, tall, short, thin, round, long, wide, large, giant, narrow, crooked, plump, high, low, flat, mighty""",
    "color": """red*2, blue*2, green, yellow, purple, orange, pink, white, black, brown, golden, silver, gray, striped, spotted, shiny, sparkly, bright, pale, dark, rosy, crimson, speckled, violet""",
    "look": """pretty*2, old*2, new*2, soft, fluffy, funny, fine, fancy, lovely, beautiful, special, strange, smooth, dusty, magic, heavy, light, clean, simple, amazing, rusty, dirty, noisy, broken, wooden, warm, wet, dry, plain, royal""",
    "taste": """sweet*2, warm*2, hot, fresh, yummy*2, tasty, cold, juicy, delicious, crunchy, sticky, soft, spicy, salty, sour, creamy, ripe, crispy, fruity, mashed, baked, sugary""",
    "trait": """kind*2, wise, gentle, friendly*2, cheerful, clever, young, quiet, jolly, patient, brave, busy, tall, sleepy, funny, polite, shy, curious, honest, strong, careful, playful, proud, calm, silly, lazy, hungry, noble, grumpy, loyal, famous, tidy""",
    "good": """happy*3, glad*2, proud*2, excited*2, cheerful, thankful, delighted, joyful, pleased, calm, merry, grateful, lucky, hopeful, relaxed, amused, thrilled, content""",
    "bad": """sad*3, worried*2, upset*2, lonely, nervous, unhappy, tired, cross, gloomy, sorry, puzzled, hurt, confused, angry, jealous, ashamed, bored, cold, weak, sleepy""",
    "manner": """softly, loudly, quickly*2, slowly*2, gently, happily, quietly, kindly, bravely, carefully, proudly, sweetly, eagerly, politely, calmly, warmly, cheerfully, shyly, patiently, wisely, boldly, firmly, gladly, merrily, sadly, nervously, brightly, hopefully""",
    "number": "two*2, three*2, four, five, six, seven, eight, nine, ten",
    # What one does.
    "hobby": """run*2, jump*2, dance, sing, skip, hop, climb, swim, paint, draw, read, cook, bake, dig,
        explore, fish, build, count, whistle, dream, hide, write, juggle, sew""",
    "moved": """ran*3, walked*2, hurried, skipped, hopped, rushed, marched, raced, crept, tiptoed, jumped, wandered, rode, danced, climbed, strolled, galloped, dashed, traveled, jogged, crawled, sailed, flew""",
    "did": """laughed*2, smiled*2, danced, sang, clapped, giggled, cheered, jumped, waved, nodded, twirled, bowed, whistled, grinned, sighed, winked, blinked, yawned, sneezed, hummed, wiggled, shivered, chuckled""",
    "said": """said*3, shouted, whispered, replied*2, called, yelled, answered, laughed, sang, explained, cried, mumbled, giggled, sighed, added, begged""",
    "oh": "Oh*2, Wow*2, Hooray, Yes*2, Look, Goodness, Great, Yay, Hello, Please",
    "virtue": """share*2, help*2, listen, try, ask, wait, forgive, learn, smile, care, give, trust, hope, work, play, rest, laugh, think, practice, dream, love, sing, pray, wonder""",
    "fine": """good*2, nice*2, important*2, wonderful, fun*2, smart, lovely, brave, easy, right, best, kind, great, polite, clever, hard, wise, sweet""",
    "dear": """friend*3, dear*2, child, sweetie, darling, buddy, hero, champion, star, helper, thinker, dreamer, fellow, pal""",
}

LISTS["child"] = LISTS["girl"] + "," + LISTS["boy"]

FORMS = {"girl": ("she", "her", "her"), "boy": ("he", "his", "him")}
"""Pronouns of those whom a list names: subject, possessive, object."""
