import unittest

import main


class Greet(unittest.TestCase):
    def test_a_greeting_names_its_guest_as_often_as_asked(self):
        self.assertEqual(main.greet("Ada"), "Hello, Ada!")
        self.assertEqual(main.greet("Ada", times=2), "Hello, Ada, Ada!")


if __name__ == "__main__":
    unittest.main()
